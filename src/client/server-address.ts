import { FiletrackerError } from '../core/errors.ts';
import { withoutTrailingSlashes } from '../core/file-name.ts';

/** Where a server is, read from its URL. */
export interface ServerAddress {
  readonly secure: boolean;
  readonly host: string;
  readonly port: number;
  /** What stands before `/files`, without a slash at the end; often empty. */
  readonly prefix: string;
  /** The Authorization header, from the URL's user info. */
  readonly authorization: string | undefined;
  /** For messages: without user info. */
  readonly shown: string;
}

function refuse(text: string, state: string, cause?: unknown): never {
  const shown = text.replace(/\/\/[^/@]*@/, '//…@');
  throw new FiletrackerError('invalid-argument', `Cannot use the server address "${shown}": ${state}`, {
    cause,
  });
}

function decodeUserInfo(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // Not encoded, as people write it.
  }
}

/**
 * Reads the address of a server, as `http://user:secret@host:9999/prefix/`.
 * @throws FiletrackerError `invalid-argument`; the text never shows the secret.
 */
export function parseServerAddress(text: string): ServerAddress {
  if (!/^https?:\/\//i.test(text)) refuse(text, 'it must begin with "http://" or "https://"');
  let url: URL;
  try {
    url = new URL(text);
  } catch (error) {
    refuse(text, 'it is not a URL', error);
  }
  if (url.search !== '' || url.hash !== '') refuse(text, 'it must not hold "?" or "#"');
  const secure = url.protocol === 'https:';
  const [user, secret] = [decodeUserInfo(url.username), decodeUserInfo(url.password)];
  const credentials = Buffer.from(`${user}:${secret}`).toString('base64');
  const prefix = withoutTrailingSlashes(url.pathname);
  return {
    secure,
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: url.port === '' ? (secure ? 443 : 80) : Number(url.port),
    prefix,
    authorization: user === '' && secret === '' ? undefined : `Basic ${credentials}`,
    shown: `${url.protocol}//${url.host}${prefix}`,
  };
}
