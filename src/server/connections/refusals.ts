// Requests that are refused before a handler sees them: bytes that are not HTTP, and requests that another server on the
// way may have read in another way.
import { cannot } from '../../core/errors.ts';
import { exceptionHeader } from '../../protocol/problems.ts';
import type { RequestHead, ResponseWriter } from './messages.ts';
import { isChunked } from './request-body.ts';

type Refusal = readonly [status: string, state: string];

const refusals: Readonly<Record<string, Refusal>> = {
  HPE_HEADER_OVERFLOW: ['431 Request Header Fields Too Large', 'the headers are too long'],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: ['413 Payload Too Large', 'the chunk extensions are too long'],
  ERR_HTTP_REQUEST_TIMEOUT: ['408 Request Timeout', 'the headers did not arrive in time'],
};
const badRequest: Refusal = ['400 Bad Request', 'it is not valid HTTP/1.1'];

/** Status and text for bytes that Node's parser rejected with `code`. */
export function refusalOf(code: string): Refusal {
  return refusals[code] ?? badRequest;
}

/** A response without a request that Node could respond to. */
export function rawResponse(status: string, line: string, headers: readonly string[] = []): string {
  const all = [
    `HTTP/1.1 ${status}`,
    'Content-Type: text/plain',
    `Content-Length: ${line.length + 1}`,
    `${exceptionHeader}: ${line}`,
    'Connection: close',
    ...headers,
  ];
  return `${all.join('\r\n')}\r\n\r\n${line}\n`;
}

const hostLength = 'host'.length;
const authorizationLength = 'authorization'.length;

/**
 * Whether `Host` or `Authorization` is repeated: Node keeps the first, a proxy may have used the last (RFC 9112, 3.2).
 * Names are first counted by length, so that hardly any request needs comparisons.
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

/** Why the end or the author of a request is ambiguous (RFC 9112, 3.2 and 6.1); `undefined` if they are clear. */
function ambiguityOf({ headers, httpVersion, rawHeaders }: RequestHead): string | undefined {
  if (hasRepeatedHeader(rawHeaders)) return 'Host and Authorization must not be repeated';
  if (httpVersion === '1.1') {
    return headers.host === undefined ? 'it has no Host header, which HTTP/1.1 requires' : undefined;
  }
  if (httpVersion !== '1.0') return 'its version is neither HTTP/1.1 nor HTTP/1.0';
  return headers['transfer-encoding'] === undefined ? undefined : 'HTTP/1.0 has no Transfer-Encoding';
}

/**
 * Refuses an ambiguous request. The connection ends with the response.
 * @throws FiletrackerError `invalid-argument`, or `unsupported-encoding` for a transfer coding.
 */
export function requireUnambiguous(request: RequestHead, response: ResponseWriter): void {
  const { shouldKeepAlive } = response;
  response.shouldKeepAlive = false;
  const ambiguity = ambiguityOf(request);
  if (ambiguity !== undefined) throw cannot('invalid-argument', 'read the request', ambiguity);
  // For every method: a DELETE whose end is unknown is not carried out either.
  isChunked(request);
  response.shouldKeepAlive = shouldKeepAlive;
}
