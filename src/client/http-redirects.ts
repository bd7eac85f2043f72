import type { IncomingHttpHeaders } from 'node:http';
import { FiletrackerError, isFiletrackerError } from '../core/errors.ts';
import { encodingOfEtag } from '../protocol/etags.ts';
import { HttpConnection } from './http-connection.ts';
import type { ConnectionOptions, HttpAnswer, HttpRequest } from './http-connection.ts';
import { parseServerAddress } from './server-address.ts';

const redirectsMax = 5;
const redirectStatuses: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** Headers by which our server describes a file when it sends its reader to where the bytes lie. */
const describingHeaders = ['last-modified', 'sha256-checksum', 'logical-size', 'etag'] as const;

export interface FollowedAnswer extends HttpAnswer {
  /**
   * Whether the bytes come from where the server said that they lie. What the headers say of the file is then
   * the server's word, because the other place knows only when the bytes were brought there.
   */
  readonly direct: boolean;
}

/**
 * Follows redirects, as a server sends them while files are being moved to it, or to where their bytes lie.
 *
 * Invariant: only our own server gets the user info of our URL; another's comes with its address. There is one
 * connection for each origin, open until `close`.
 */
export class HttpRedirects {
  readonly #own: HttpConnection;
  readonly #options: ConnectionOptions;
  readonly #others = new Map<string, HttpConnection>();

  /** `own` stays the caller's. */
  constructor(own: HttpConnection, options: ConnectionOptions) {
    this.#own = own;
    this.#options = options;
  }

  /**
   * Sends a GET or HEAD to our own server and gives the answer that is no redirect. `onDirect` is called before
   * the bytes are asked for elsewhere; what fails there is worth another try, with the server itself.
   */
  async request(request: HttpRequest, onDirect?: () => void): Promise<FollowedAnswer> {
    let answer = await this.#own.request(request);
    let described: IncomingHttpHeaders | undefined;
    let base = `${this.#own.address.shown}${request.path}`;
    for (let redirects = 0; redirectStatuses.has(answer.status); redirects += 1) {
      answer.body.resume();
      const { location } = answer.headers;
      if (location === undefined || redirects === redirectsMax) {
        throw new FiletrackerError('protocol', `Cannot ${request.action}: the server redirects to nowhere`);
      }
      // Some servers send the name as bare UTF-8, which Node gives as Latin-1.
      const target = new URL(Buffer.from(location, 'latin1').toString(), base);
      base = target.href;
      const path = `${target.pathname}${target.search}`;
      described = descriptionIn(answer.headers) ?? described;
      if (described !== undefined) onDirect?.();
      try {
        answer = await this.#connectionTo(target).request({ ...request, path });
      } catch (error) {
        throw described === undefined ? error : retryable(error);
      }
    }
    if (described === undefined) return { ...answer, direct: false };
    return { ...answer, headers: describedHeaders(answer.headers, described), direct: true };
  }

  /** Idempotent. */
  close(): void {
    for (const connection of this.#others.values()) connection.close();
  }

  #connectionTo(target: URL): HttpConnection {
    const { username, password, origin, host, protocol } = target;
    const user = username === '' ? '' : `${username}:${password}@`;
    const known = this.#others.get(origin);
    if (known !== undefined) return known;
    const other = parseServerAddress(`${protocol}//${user}${host}`);
    const { authorization, host: ownHost, port, secure } = this.#own.address;
    const same = other.host === ownHost && other.port === port && other.secure === secure;
    const address = same ? { ...other, authorization: other.authorization ?? authorization } : other;
    const connection = new HttpConnection(address, this.#options);
    this.#others.set(origin, connection);
    return connection;
  }
}

function descriptionIn(headers: IncomingHttpHeaders): IncomingHttpHeaders | undefined {
  // In a migration the server knows nothing of the file that it does not hold.
  if (headers['last-modified'] === undefined || headers['sha256-checksum'] === undefined) return undefined;
  return Object.fromEntries(describingHeaders.map((name) => [name, headers[name]]));
}

function describedHeaders(headers: IncomingHttpHeaders, described: IncomingHttpHeaders): IncomingHttpHeaders {
  // Not every object store labels what it sends as it was asked to.
  const encoding = headers['content-encoding'] ?? encodingOfEtag(described.etag);
  return { ...headers, ...described, ...(encoding && { 'content-encoding': encoding }) };
}

function retryable(error: unknown): unknown {
  if (!isFiletrackerError(error) || error.retryable || error.code === 'aborted') return error;
  return new FiletrackerError(error.code, error.message, { cause: error, retryable: true });
}
