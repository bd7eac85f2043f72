import type { IncomingMessage, ServerResponse } from 'node:http';
import { FiletrackerError } from '../core/errors.ts';
import { isChunked } from './connections/request-body.ts';

const hostLength = 'host'.length;
const authorizationLength = 'authorization'.length;

/**
 * Whether `Host` or `Authorization` comes twice: Node keeps the first, others on the way may have looked at the last
 * (RFC 9112, 3.2). Names are counted by their lengths, so that next to no request has them compared.
 */
export function hasRepeatedHeader(rawHeaders: readonly string[]): boolean {
  let hosts = 0;
  let authorizations = 0;
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const { length } = rawHeaders[index] ?? '';
    if (length === hostLength) hosts += 1;
    else if (length === authorizationLength) authorizations += 1;
  }
  if (hosts < 2 && authorizations < 2) return false;
  const names = rawHeaders.filter((_, index) => index % 2 === 0).map((name) => name.toLowerCase());
  return ['host', 'authorization'].some((name) => names.indexOf(name) !== names.lastIndexOf(name));
}

/** What makes the end of a request doubtful, or whose it is (RFC 9112, 3.2 and 6.1); undefined for a sound one. */
function faultOf({ headers, httpVersion, rawHeaders }: IncomingMessage): string | undefined {
  if (hasRepeatedHeader(rawHeaders)) return 'Host and Authorization may come only once';
  if (httpVersion === '1.1') {
    return headers.host === undefined ? 'it has no Host header, which HTTP/1.1 demands' : undefined;
  }
  if (httpVersion !== '1.0') return 'its version is neither HTTP/1.1 nor HTTP/1.0';
  return headers['transfer-encoding'] === undefined ? undefined : 'HTTP/1.0 has no Transfer-Encoding';
}

/**
 * Refuses a request that another on the way may have read otherwise. The connection ends with the answer.
 * @throws FiletrackerError `invalid-argument`, or `unsupported-encoding` for a transfer coding.
 */
export function requireTrusted(request: IncomingMessage, response: ServerResponse): void {
  const { shouldKeepAlive } = response;
  response.shouldKeepAlive = false;
  const fault = faultOf(request);
  if (fault !== undefined) {
    throw new FiletrackerError('invalid-argument', `Cannot read the request: ${fault}`);
  }
  // Of every method: a DELETE whose end is not known is not carried out either.
  isChunked(request);
  response.shouldKeepAlive = shouldKeepAlive;
}
