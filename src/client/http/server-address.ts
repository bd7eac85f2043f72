import { cannot } from '../../core/errors.ts';
import { withoutTrailingSlashes } from '../../core/file-name.ts';
import { shownAddress } from '../../core/shown-text.ts';

/** The address of a server, read from its URL. */
export interface ServerAddress {
  readonly secure: boolean;
  /** A name or an address; an IPv6 address has no brackets and may have a zone. */
  readonly host: string;
  readonly port: number;
  /** For the Host header and CONNECT: without the zone of an IPv6 address, which has a meaning on this machine only. */
  readonly hostHeader: string;
  /** The path before `/files`, without a slash at its end; often empty. */
  readonly prefix: string;
  /** The Authorization header, from the URL's user info. */
  readonly authorization: string | undefined;
  /** For messages: without user info. */
  readonly shown: string;
}

const encodeAdvice =
  'write "@", "/", "?" and "#" in a user name, a password or a path as %40, %2F, %3F and %23';

function decodeUserInfo(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // Not encoded, as people write it.
  }
}

/** `http://[fe80::1%25eth0]:9999`, with `%25` as in RFC 6874 or `%` as people write it; URL accepts neither. */
const zonedHost = /^([a-z]+:\/\/(?:[^/?#]*@)?\[[0-9a-f:.]+)%(?:25)?([\w.~-]+)(?=\])/i;

function parseUrl(what: string, text: string): URL {
  const refuse = (state: string): never => {
    // No cause: the error of Node holds the text, with its secret.
    throw cannot('invalid-argument', `use the ${what} "${shownAddress(text)}"`, state);
  };
  if (!/^https?:\/\//i.test(text)) return refuse('it must begin with "http://" or "https://"');
  const url = URL.canParse(text) ? new URL(text) : undefined;
  // Text before an "@" was meant as a secret, and must not be sent as anything else.
  const isCut = url === undefined ? text.includes('@') : /@/.test(url.pathname + url.search + url.hash);
  if (isCut) return refuse(`it is not a URL; ${encodeAdvice}`);
  if (url === undefined) return refuse('it is not a URL');
  if (url.search !== '' || url.hash !== '') return refuse('it must not hold "?" or "#"');
  return url;
}

/**
 * Reads the address of a server, as `http://user:secret@host:9999/prefix/`.
 * @param what Names the address in errors.
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
