// Requests of the protocol, and what the headers and bodies of responses mean.
import type { IncomingHttpHeaders } from 'node:http';
import { isDigest, type Digest } from '../../core/digest.ts';
import { cannot, FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import type { FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { digestHeader, logicalSizeHeader, parseSize } from '../../protocol/content-claims.ts';
import { parseContentEncoding } from '../../protocol/content-encoding.ts';
import { formatDate, readDate } from '../../protocol/dates.ts';
import type { VersionAnswer } from '../../protocol/endpoints.ts';
import { digestOfEtag } from '../../protocol/etags.ts';
import { errorOfAnswer, exceptionCodeHeader, exceptionHeader } from '../../protocol/problems.ts';
import { formatVersionQuery } from '../../protocol/query.ts';
import { parseContentRange } from '../../protocol/ranges.ts';
import { filePath } from '../../protocol/request-target.ts';
import { bodyChunks } from '../../streams/chunks.ts';
import { fromConnectionError } from './connection-errors.ts';
import type { RemoteCapabilities, RemoteContent, RemoteFile, UploadContent } from './remote-store.ts';
import type { HttpRequest, HttpResponse } from './request-attempt.ts';

/** Versions of the protocol that this client speaks, best first. */
const spokenVersions = [2, 1];

/** Requests errors as JSON, which says more than a status. */
export const acceptProblem = { Accept: 'application/problem+json, text/plain;q=0.9, */*;q=0.5' };

/** An ETag that may be sent back; not all that servers send are well-formed. */
const etagForm = /^(?:W\/)?"[\x21\x23-\x7e]{0,256}"$/;

/** Bytes and time, in milliseconds, up to which a body for people is read. A byte now and then would never stall. */
const textMaxBytes = 64 * 1024;
const textTimeMaxMs = 30_000;

/** Headers of a GET: of the whole in any encoding, or of the identity form from byte `first` on. */
export function openHeaders(etags: readonly string[], first: number | undefined): Record<string, string> {
  const encoding = first === undefined ? 'gzip' : 'identity';
  const headers: Record<string, string> = { ...acceptProblem, 'Accept-Encoding': encoding };
  const known = etags.filter((etag) => etagForm.test(etag));
  if (known.length > 0) headers['If-None-Match'] = known.join(', ');
  if (first !== undefined) headers['Range'] = `bytes=${first}-`;
  return headers;
}

export function putRequest(
  name: FileName,
  version: FileVersion,
  content: UploadContent,
  { protocolVersion, features }: RemoteCapabilities,
): Pick<HttpRequest, 'method' | 'path' | 'headers' | 'expectContinue'> {
  const { transferSize, bytes, encoding, digest, size } = content;
  const headers: Record<string, string | number> = {
    'Content-Type': 'application/octet-stream',
    ...(transferSize !== undefined && { 'Content-Length': transferSize }),
  };
  if (protocolVersion === 1) {
    headers['Last-Modified'] = formatDate(version);
    return { method: 'PUT', path: filePath(name), headers };
  }
  Object.assign(headers, acceptProblem, { 'SHA256-Checksum': digest, 'Logical-Size': size });
  if (encoding !== 'identity') headers['Content-Encoding'] = encoding;
  return {
    method: 'PUT',
    path: `${filePath(name)}?${formatVersionQuery(version)}`,
    headers,
    // Costs a round trip, so a body that fits a few packets is sent at once.
    expectContinue: typeof bytes === 'function' && features.has('expect-continue'),
  };
}

export function parseCapabilities(text: string, shown: string): RemoteCapabilities {
  const fail = (state: string, cause?: unknown): FiletrackerError =>
    cannot('protocol', `use the server at "${shown}"`, state, { cause });
  let parsed: Partial<Record<keyof VersionAnswer, unknown>> | null;
  try {
    parsed = JSON.parse(text) as typeof parsed;
  } catch (error) {
    throw fail('it does not state which versions of the protocol it supports', error);
  }
  const { protocol_versions: offered, features } = parsed ?? {};
  const versions: readonly unknown[] = Array.isArray(offered) ? offered : [];
  const protocolVersion = spokenVersions.find((version) => versions.includes(version));
  if (protocolVersion === undefined)
    throw fail('it supports no version of the protocol that this client supports');
  const words: readonly unknown[] = Array.isArray(features) ? features : [];
  return { protocolVersion, features: new Set(words.filter((word) => typeof word === 'string')) };
}

/**
 * The sender of a 404: a filetracker server of version 1 or 2; `none`, one as well, but at another path; `unknown` if a
 * proxy may have removed the evidence, or no filetracker server is there.
 */
export function senderOfAbsence({ headers }: HttpResponse): 'version-1' | 'version-2' | 'none' | 'unknown' {
  if (headerText(headers, exceptionCodeHeader.toLowerCase()) === 'protocol') return 'none';
  if (headers[exceptionHeader.toLowerCase()] !== undefined) return 'version-2';
  // The name of the web server of protocol version 1.
  return /^filetracker\b/.test(headerText(headers, 'server') ?? '') ? 'version-1' : 'unknown';
}

/** The end of an address that was copied from the address of a file. */
export const misleadingEnd = /\/(?:files|list|version)$/;

export function noServer(action: string, shown: string): FiletrackerError {
  const [end] = misleadingEnd.exec(shown) ?? [];
  const advice = end === undefined ? 'check the path in its URL' : `leave "${end}" out of its URL`;
  const state = `there is no filetracker server at "${shown}"; ${advice}`;
  return cannot('unreachable', action, state, { retryable: false });
}

/** The version in a response; `undefined` also for an unreadable date, which is the server's mistake. */
export function versionOf(headers: IncomingHttpHeaders): FileVersion | undefined {
  const text = headers['last-modified'];
  return text === undefined ? undefined : readDate(text);
}

function headerText(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[name];
  return Array.isArray(value) ? value[0] : value;
}

function digestOf(headers: IncomingHttpHeaders): Digest | undefined {
  const given = headerText(headers, digestHeader)?.trim().toLowerCase();
  if (given !== undefined && isDigest(given)) return given;
  return digestOfEtag(headers.etag);
}

function sizeOf(headers: IncomingHttpHeaders): number | undefined {
  const logicalSize = headerText(headers, logicalSizeHeader);
  if (logicalSize !== undefined) return parseSize('Logical-Size', logicalSize.trim());
  const length = headers['content-length'];
  const identity = parseContentEncoding(headers['content-encoding']) === 'identity';
  return identity && length !== undefined ? parseSize('Content-Length', length) : undefined;
}

/** Runs `read` on parts of a response; what cannot be read is the server's mistake, not the caller's. */
export function reading<T>({ request, peer }: HttpResponse, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!isFiletrackerError(error) || error.code === 'protocol') throw error;
    const state = error.message.replace(/^Cannot read/, 'its response is malformed:');
    throw cannot('protocol', `${request.action} at ${peer}`, state, { cause: error });
  }
}

/** @throws FiletrackerError `protocol` for unreadable headers. */
export function remoteFile(name: FileName, response: HttpResponse): RemoteFile {
  return reading(response, () => {
    const { headers } = response;
    const version = versionOf(headers);
    if (version !== undefined) {
      return { name, version, size: sizeOf(headers), digest: digestOf(headers), etag: headers.etag };
    }
    throw cannot('protocol', `get "${name}"`, 'the server does not state its version as a date');
  });
}

/** The content of a 200, or of a 206 from byte `first` on. @throws FiletrackerError `protocol` for unreadable headers. */
export function remoteContent(name: FileName, response: HttpResponse, first: number): RemoteContent {
  const { headers, body, status, direct } = response;
  try {
    const file = remoteFile(name, response);
    return reading(response, () => {
      const length = headers['content-length'];
      return {
        kind: 'content',
        file: status === 206 ? { ...file, size: sizeOfPart(name, headers, first) } : file,
        encoding: parseContentEncoding(headers['content-encoding']),
        transferSize: length === undefined ? undefined : parseSize('Content-Length', length),
        first,
        direct,
        body: bodyOf(response),
        cancel: () => body.destroy(),
      };
    });
  } catch (error) {
    body.destroy();
    throw error;
  }
}

/** The whole size of a file of which a 206 holds the part from `first` to the end. */
function sizeOfPart(name: FileName, headers: IncomingHttpHeaders, first: number): number {
  const range = parseContentRange(headers['content-range'] ?? '');
  if (range !== undefined && range.first === first && range.last === range.size - 1) return range.size;
  throw cannot('protocol', `get "${name}"`, 'the server sent a different range than requested');
}

/** The bytes of a body. @throws FiletrackerError if the connection fails. */
async function* bodyOf({ body, request, peer }: HttpResponse): AsyncGenerator<Buffer> {
  try {
    yield* body as AsyncIterable<Buffer>;
  } catch (error) {
    throw fromConnectionError(error, request, peer);
  }
}

/**
 * The bytes of a list. An abort rejects the next read, also if all bytes have arrived, and destroys the response before Node
 * returns its connection to the pool.
 * @throws FiletrackerError `aborted`, or if the connection fails.
 */
export async function* listedBytes({ body, request, peer }: HttpResponse): AsyncGenerator<Buffer> {
  try {
    yield* bodyChunks(body, request.signal);
  } catch (error) {
    // A connection that was cut is no abort: the list resumes.
    throw fromConnectionError(isFiletrackerError(error, 'aborted') ? error.cause : error, request, peer);
  } finally {
    body.destroy();
  }
}

/** The beginning of a body as text. @throws FiletrackerError if the connection fails. */
export async function textOf(response: HttpResponse): Promise<string> {
  const { body, request, peer } = response;
  const endless = cannot('timeout', request.action, `the response of ${peer} does not end`);
  const timer = setTimeout(() => void body.destroy(endless), textTimeMaxMs);
  const parts: Buffer[] = [];
  let sizeBytes = 0;
  try {
    for await (const part of bodyOf(response)) {
      parts.push(part);
      sizeBytes += part.length;
      if (sizeBytes > textMaxBytes) break;
    }
  } finally {
    clearTimeout(timer);
  }
  return Buffer.concat(parts).toString();
}

/** The error that a response stands for, from its status, headers and body. */
export async function errorOf(response: HttpResponse): Promise<FiletrackerError> {
  const { headers, status, request, peer, redirectedBy } = response;
  const code = headers[exceptionCodeHeader.toLowerCase()];
  const error = errorOfAnswer(
    {
      status,
      contentType: headers['content-type'],
      exceptionLine: headerText(headers, exceptionHeader.toLowerCase()),
      ...(typeof code === 'string' && { code, version: versionOf(headers) }),
      retryAfter: headers['retry-after'],
      body: await textOf(response),
    },
    `${request.action} at ${peer}`,
  );
  if (redirectedBy === undefined || error.code !== 'unauthorized') return error;
  const { message, retryable, details } = error;
  const advice = `${redirectedBy} redirects to ${peer}, which does not receive its user name and password; use that address`;
  return new FiletrackerError(error.code, `${message} (${advice})`, { retryable, details });
}
