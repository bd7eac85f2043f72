import type { IncomingHttpHeaders } from 'node:http';
import { FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import { shownAddress } from '../../core/shown-text.ts';
import { encodingOfEtag } from '../../protocol/etags.ts';
import { discard } from './discarded-body.ts';
import { HttpConnection } from './connection.ts';
import type { ConnectionOptions } from './connection.ts';
import type { HttpAnswer, HttpRequest } from './exchange.ts';
import { parseServerAddress } from './server-address.ts';
import type { ServerAddress } from './server-address.ts';

const redirectsMax = 5;
const originsMax = 100;
const shownTargetMaxLength = 200;
const redirectStatuses: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** Headers by which our server describes a file when it sends its reader to where the bytes lie. */
const describingHeaders = ['last-modified', 'sha256-checksum', 'logical-size', 'etag'] as const;

export interface FollowedAnswer extends HttpAnswer {
  /**
   * Whether the bytes come from where the server said that they lie. What the headers say of the file is then
   * the server's word, because the other place knows only when the bytes were brought there.
   */
  readonly direct: boolean;
  /** The server that answered, as messages name it. */
  readonly peer: string;
}

/**
 * Follows redirects: of a server while files are being moved to it, of one that moved, of a proxy that wants https, and
 * to where the bytes of a file are. The method stays, as for `curl --location`; a 303 leads to something else than what
 * was to be changed, and is an error then.
 *
 * Invariant: only our own origin gets the user info of our URL and the certificate of this client; another's user
 * info comes with its address. There is one connection for each origin, open until `close`.
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
   * Sends a request to our own server and gives the answer that is no redirect. `onDirect` is called before
   * the bytes are asked for elsewhere; what fails there is worth another try, with the server itself.
   */
  async request(request: HttpRequest, onDirect?: () => void): Promise<FollowedAnswer> {
    let connection = this.#own;
    let answer = await connection.request(request);
    let described: IncomingHttpHeaders | undefined;
    let base = `${originOf(connection.address)}${connection.address.prefix}${request.path}`;
    for (let redirects = 1; redirectStatuses.has(answer.status); redirects += 1) {
      discard(answer.body);
      const target = targetOf(answer, base, request, connection.peer);
      if (redirects > redirectsMax) {
        const state = `it redirects more than ${redirectsMax} times, at last to "${shownTarget(target.href)}"`;
        throw refusal(request, connection.peer, state);
      }
      base = target.href;
      const path = `${target.pathname}${target.search}`;
      described = descriptionIn(answer.headers) ?? described;
      if (described !== undefined) onDirect?.();
      connection = this.#connectionTo(target);
      try {
        answer = await connection.request({ ...request, path });
      } catch (error) {
        throw described === undefined ? error : retryable(error);
      }
    }
    const { peer } = connection;
    if (described === undefined) return { ...answer, direct: false, peer };
    return { ...answer, headers: describedHeaders(answer.headers, described), direct: true, peer };
  }

  /** Idempotent. */
  close(): void {
    for (const connection of this.#others.values()) connection.close();
  }

  #connectionTo(target: URL): HttpConnection {
    const { username, password, origin, host, protocol } = target;
    const user = username === '' && password === '' ? '' : `${username}:${password}@`;
    const known = this.#others.get(`${user}${origin}`);
    if (known !== undefined) return known;
    const other = parseServerAddress(`${protocol}//${user}${host}`);
    const { address: own } = this.#own;
    const isOwn = other.host === own.host && other.port === own.port && other.secure === own.secure;
    const connection = isOwn
      ? new HttpConnection(
          { ...other, authorization: other.authorization ?? own.authorization },
          this.#options,
        )
      : new HttpConnection(other, { ...this.#options, tls: { ca: this.#options.tls.ca } });
    if (this.#others.size >= originsMax) this.#forgetOldest();
    this.#others.set(`${user}${origin}`, connection);
    return connection;
  }

  /** A server that redirects each request to another origin must not use up memory and sockets. */
  #forgetOldest(): void {
    for (const [key] of this.#others) {
      this.#others.delete(key);
      return;
    }
  }
}

function originOf({ secure, hostHeader }: ServerAddress): string {
  return `${secure ? 'https' : 'http'}://${hostHeader}`;
}

function refusal({ action }: HttpRequest, peer: string, state: string): FiletrackerError {
  return new FiletrackerError('protocol', `Cannot ${action} at ${peer}: ${state}`);
}

function shownTarget(location: string): string {
  return shownAddress(location).slice(0, shownTargetMaxLength);
}

/** @throws FiletrackerError `protocol` for a redirect that leads nowhere or must not be followed. */
function targetOf({ status, headers }: HttpAnswer, base: string, request: HttpRequest, peer: string): URL {
  if (headers.location === undefined) throw refusal(request, peer, `it answers ${status} without a Location`);
  // Some servers send the name as bare UTF-8, which Node gives as Latin-1.
  const location = Buffer.from(headers.location, 'latin1').toString();
  const target = URL.canParse(location, base) ? new URL(location, base) : undefined;
  if (target?.protocol !== 'http:' && target?.protocol !== 'https:') {
    throw refusal(
      request,
      peer,
      `it redirects to "${shownTarget(location)}", which is no http or https address`,
    );
  }
  if (status === 303 && request.method !== 'GET' && request.method !== 'HEAD') {
    throw refusal(
      request,
      peer,
      `it answers 303 and names "${shownTarget(target.href)}"; use the address of the server itself`,
    );
  }
  return target;
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
