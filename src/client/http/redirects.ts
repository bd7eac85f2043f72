import type { IncomingHttpHeaders } from 'node:http';
import { cannot, FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import { shownAddress } from '../../core/shown-text.ts';
import { encodingOfEtag } from '../../protocol/etags.ts';
import { HttpConnection } from './connection.ts';
import { discard, type HttpRequest, type HttpResponse } from './request-attempt.ts';
import { parseServerAddress } from './server-address.ts';
import type { ConnectionOptions } from './transport-options.ts';

const redirectsMax = 5;
const originsMax = 100;
const shownTargetMaxLength = 200;
const redirectStatuses: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** Headers by which our server describes a file when it redirects a reader to the blob's own place. */
const describingHeaders = ['last-modified', 'sha256-checksum', 'logical-size', 'etag'] as const;

/**
 * Follows redirects: of a server while files are moved to it, of one that has moved, of a proxy that wants https, and to the
 * place where blobs are stored. The method is kept, as by `curl --location`; a 303 to anything but a read is an error.
 *
 * Invariant: only our own origin receives the user info of our URL and the certificate of this client; another's user
 * info comes with its address. There is one connection per origin, open until `close`.
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
   * Sends a request to our own server and returns the first response that is no redirect. `onDirect` is called before
   * the bytes are requested from another place; a failure there is worth another try, with the server itself.
   */
  async request(request: HttpRequest, onDirect?: () => void): Promise<HttpResponse> {
    let connection = this.#own;
    let response = await connection.request(request);
    if (!redirectStatuses.has(response.status)) return response;
    let described: IncomingHttpHeaders | undefined;
    const { secure, hostHeader, prefix } = connection.address;
    let base = `${secure ? 'https' : 'http'}://${hostHeader}${prefix}${request.path}`;
    for (let redirects = 1; redirectStatuses.has(response.status); redirects += 1) {
      discard(response);
      const target = targetOf(response, base);
      if (redirects > redirectsMax) {
        throw refusal(
          response,
          `it redirects more than ${redirectsMax} times, at last to ${shown(target.href)}`,
        );
      }
      base = target.href;
      described = descriptionIn(response.headers) ?? described;
      if (described !== undefined) onDirect?.();
      connection = this.#connectionTo(target);
      try {
        response = await connection.request({ ...request, path: `${target.pathname}${target.search}` });
      } catch (error) {
        throw described === undefined ? error : retryable(error);
      }
    }
    const redirectedBy = response.peer === this.#own.peer ? undefined : this.#own.peer;
    if (described === undefined) return { ...response, redirectedBy };
    const headers = describedHeaders(response.headers, described);
    return { ...response, redirectedBy, headers, direct: true };
  }

  /** Idempotent. */
  close(): void {
    for (const connection of this.#others.values()) connection.close();
  }

  #connectionTo({ username, password, origin, host, protocol }: URL): HttpConnection {
    const user = username === '' && password === '' ? '' : `${username}:${password}@`;
    const key = `${user}${origin}`;
    const known = this.#others.get(key);
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
    // A server that redirects each request to another origin must not use up memory and sockets.
    const [oldest] = this.#others.keys();
    if (this.#others.size >= originsMax && oldest !== undefined) this.#others.delete(oldest);
    this.#others.set(key, connection);
    return connection;
  }
}

function refusal({ request, peer }: HttpResponse, state: string): FiletrackerError {
  return cannot('protocol', `${request.action} at ${peer}`, state);
}

function shown(location: string): string {
  return `"${shownAddress(location).slice(0, shownTargetMaxLength)}"`;
}

/** @throws FiletrackerError `protocol` for a redirect that leads nowhere or must not be followed. */
function targetOf(response: HttpResponse, base: string): URL {
  const { request, status, headers } = response;
  if (headers.location === undefined)
    throw refusal(response, `it responded with status ${status} but no Location`);
  // Some servers send the name as bare UTF-8, which Node decodes as Latin-1.
  const location = Buffer.from(headers.location, 'latin1').toString();
  const target = URL.canParse(location, base) ? new URL(location, base) : undefined;
  if (target?.protocol !== 'http:' && target?.protocol !== 'https:') {
    throw refusal(response, `it redirects to ${shown(location)}, which is no http or https address`);
  }
  if (status === 303 && request.method !== 'GET' && request.method !== 'HEAD') {
    const advice = 'use the address of the server itself';
    throw refusal(response, `it redirects to ${shown(target.href)} with status 303; ${advice}`);
  }
  return target;
}

function descriptionIn(headers: IncomingHttpHeaders): IncomingHttpHeaders | undefined {
  // During a migration the server knows nothing of a file that it does not hold.
  if (headers['last-modified'] === undefined || headers['sha256-checksum'] === undefined) return undefined;
  return Object.fromEntries(describingHeaders.map((name) => [name, headers[name]]));
}

/** The headers of another place, which knows only when the bytes came there, with what the server says of the file. */
function describedHeaders(headers: IncomingHttpHeaders, described: IncomingHttpHeaders): IncomingHttpHeaders {
  // Not every object store labels its response as requested.
  const encoding = headers['content-encoding'] ?? encodingOfEtag(described.etag);
  return { ...headers, ...described, ...(encoding && { 'content-encoding': encoding }) };
}

function retryable(error: unknown): unknown {
  if (!isFiletrackerError(error) || error.retryable || error.code === 'aborted') return error;
  return new FiletrackerError(error.code, error.message, { cause: error, retryable: true });
}
