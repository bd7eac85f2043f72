/** The credentials of an `Authorization` header; `name` only if the scheme has one. */
export interface Credentials {
  readonly name: string | undefined;
  readonly secret: string;
}

/** The scheme is case-insensitive, and one or more blanks follow it (RFC 9110, 11.4). */
const header = /^(basic|bearer) +([^\s]+)$/i;
const base64 = /^[A-Za-z0-9+/_-]+={0,2}$/;

function parseBasic(text: string): Credentials | undefined {
  if (!base64.test(text)) return undefined;
  const pair = Buffer.from(text, 'base64').toString('utf8');
  const colon = pair.indexOf(':');
  // The name ends at the first colon, the password may hold more of them (RFC 7617, 2).
  if (colon === -1) return undefined;
  return { name: pair.slice(0, colon), secret: pair.slice(colon + 1) };
}

/** Reads `Basic …` (RFC 7617) and `Bearer …` (RFC 6750). `undefined` for any other or malformed header. */
export function parseAuthorization(text: string): Credentials | undefined {
  const found = header.exec(text.trim());
  const [, scheme = '', value = ''] = found ?? [];
  if (found === null) return undefined;
  return scheme.toLowerCase() === 'basic' ? parseBasic(value) : { name: undefined, secret: value };
}

/** The supported schemes, as `WWW-Authenticate` headers of a 401. */
export const challenges: readonly string[] = [
  'Bearer realm="filetracker"',
  'Basic realm="filetracker", charset="UTF-8"',
];
