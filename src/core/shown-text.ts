import { errorTextSizeMaxBytes } from './limits.ts';

const ellipsis = '...';

function isInsideCharacter(byte: number | undefined): boolean {
  return byte !== undefined && byte >> 6 === 0b10;
}

function beginningOf(text: string, sizeBytes: number): string {
  const bytes = Buffer.from(text.slice(0, sizeBytes));
  let end = Math.min(sizeBytes, bytes.length);
  while (isInsideCharacter(bytes[end])) end -= 1;
  return bytes.toString('utf8', 0, end);
}

function endOf(text: string, sizeBytes: number): string {
  const bytes = Buffer.from(text.slice(-sizeBytes));
  let start = Math.max(0, bytes.length - sizeBytes);
  while (isInsideCharacter(bytes[start])) start += 1;
  return bytes.toString('utf8', start);
}

/**
 * An error text cut to at most 1 KiB of UTF-8. The cut is in the middle: the action is at the beginning, the advice at
 * the end.
 */
export function boundedText(text: string): string {
  const sizeMaxBytes = errorTextSizeMaxBytes;
  // A UTF-16 code unit takes at most three bytes.
  if (text.length * 3 <= sizeMaxBytes) return text;
  if (text.length <= sizeMaxBytes && Buffer.byteLength(text) <= sizeMaxBytes) return text;
  const partSizeBytes = Math.floor((sizeMaxBytes - ellipsis.length) / 2);
  return beginningOf(text, partSizeBytes) + ellipsis + endOf(text, partSizeBytes);
}

const leadingScheme = /^[a-z][a-z0-9+.-]*:\/\//i;

/**
 * An address as messages show it: without the part before its last "@" (user name, password or token) and without its
 * query, which may contain keys. The text need not be a URL.
 */
export function shownAddress(text: string): string {
  const [scheme = ''] = leadingScheme.exec(text) ?? [];
  const rest = text.slice(scheme.length);
  const at = rest.lastIndexOf('@');
  const known = at === -1 ? rest : `…@${rest.slice(at + 1)}`;
  const query = known.indexOf('?');
  return `${scheme}${query === -1 ? known : `${known.slice(0, query)}?…`}`;
}

/** Server addresses with user info. A path that was made from an address has one slash. */
const addressWithSecret = /\b((?:https?|postgres(?:ql)?|s3):\/{1,2})[^\s"'<>]*@/gi;

/** The text with the user info of every address in it replaced by "…". */
export function withoutSecrets(text: string): string {
  return text.replace(addressWithSecret, '$1…@');
}

/** Control characters, which a terminal may execute, and Unicode line separators. */
const controls = /[\p{Cc}\u2028\u2029]/gu;
const shortEscapes: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };

/** A text that may contain names from a disk, as one line; control characters are escaped as in JSON. */
export function asShown(text: string): string {
  return text.replace(
    controls,
    (control) => shortEscapes[control] ?? `\\u${control.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
