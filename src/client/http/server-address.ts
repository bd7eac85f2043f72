import { FiletrackerError } from '../../core/errors.ts';
import { withoutTrailingSlashes } from '../../core/file-name.ts';
import { shownAddress } from '../../core/shown-text.ts';

/** Where a server is, read from its URL. */
export interface ServerAddress {
  readonly secure: boolean;
  /** A name or an address; an IPv6 address has no brackets and may have a zone. */
  readonly host: string;
  readonly port: number;
  /** For the Host header and the authority of proxies: without the zone of an IPv6 address, which only this machine knows. */
  readonly hostHeader: string;
  /** What stands before `/files`, without a slash at the end; often empty. */
  readonly prefix: string;
  /** The Authorization header, from the URL's user info. */
  readonly authorization: string | undefined;
  /** For messages: without user info. */
  readonly shown: string;
}

const encodeAdvice =
  'write "@", "/", "?" and "#" in a user name, a password or a path as %40, %2F, %3F and %23';

function refuse(what: string, text: string, state: string): never {
  // No cause: the error of Node holds the text, with its secret.
  throw new FiletrackerError('invalid-argument', `Cannot use the ${what} "${shownAddress(text)}": ${state}`);
}

function decodeUserInfo(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // Not encoded, as people write it.
  }
}

/** `http://[fe80::1%25eth0]:9999`, with `%25` as in RFC 6874 or `%` as people write it; URL takes neither. */
const zonedHost = /^([a-z]+:\/\/(?:[^/?#]*@)?\[[0-9a-f:.]+)%(?:25)?([\w.~-]+)(?=\])/i;

function parseUrl(what: string, text: string): URL {
  if (!/^https?:\/\//i.test(text)) refuse(what, text, 'it must begin with "http://" or "https://"');
  const url = URL.canParse(text) ? new URL(text) : undefined;
  // What stands before an "@" was meant as a secret, and must not be sent as anything else.
  const isCut = url === undefined ? text.includes('@') : /@/.test(url.pathname + url.search + url.hash);
  if (isCut) refuse(what, text, `it is not a URL; ${encodeAdvice}`);
  if (url === undefined) refuse(what, text, 'it is not a URL');
  if (url.search !== '' || url.hash !== '') refuse(what, text, 'it must not hold "?" or "#"');
  return url;
}

/**
 * Reads the address of a server, as `http://user:secret@host:9999/prefix/`.
 * @throws FiletrackerError `invalid-argument`, which shows no secret.
 */
export function parseServerAddress(text: string, what = 'server address'): ServerAddress {
  const zone = zonedHost.exec(text)?.[2];
  const url = parseUrl(what, zone === undefined ? text : text.replace(zonedHost, '$1'));
  const secure = url.protocol === 'https:';
  const [user, secret] = [decodeUserInfo(url.username), decodeUserInfo(url.password)];
  const credentials = Buffer.from(`${user}:${secret}`).toString('base64');
  const prefix = withoutTrailingSlashes(url.pathname);
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  const shownHost = zone === undefined ? url.host : url.host.replace(']', `%25${zone}]`);
  return {
    secure,
    host: zone === undefined ? host : `${host}%${zone}`,
    port: url.port === '' ? (secure ? 443 : 80) : Number(url.port),
    hostHeader: url.host,
    prefix,
    authorization: user === '' && secret === '' ? undefined : `Basic ${credentials}`,
    shown: `${url.protocol}//${shownHost}${prefix}`,
  };
}
