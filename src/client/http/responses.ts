// What the headers of a server's answers say, and what a request to put says; pure.
import type { IncomingHttpHeaders } from 'node:http';
import { isDigest } from '../../core/digest.ts';
import type { Digest } from '../../core/digest.ts';
import { FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import type { FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { digestHeader, logicalSizeHeader, parseSize } from '../../protocol/content-claims.ts';
import { parseContentEncoding } from '../../protocol/content-encoding.ts';
import { formatDate, readDate } from '../../protocol/dates.ts';
import type { VersionAnswer } from '../../protocol/endpoints.ts';
import { digestOfEtag } from '../../protocol/etags.ts';
import { exceptionCodeHeader, exceptionHeader } from '../../protocol/problems.ts';
import { formatVersionQuery } from '../../protocol/query.ts';
import { parseContentRange } from '../../protocol/ranges.ts';
import { filePath } from '../../protocol/request-target.ts';
import type { HttpRequest } from './exchange.ts';
import type { RemoteAbilities, RemoteFile, UploadContent } from './remote-store.ts';

/** The versions of the protocol that this client speaks, the one it likes most first. */
const spokenVersions = [2, 1];

/** Errors are asked for as JSON, which tells more than a status. */
export const acceptProblem = { Accept: 'application/problem+json, text/plain;q=0.9, */*;q=0.5' };

/** A tag that may be sent back: what a server sends as one need not be. */
const etagForm = /^(?:W\/)?"[\x21\x23-\x7e]{0,256}"$/;

/** Headers of a GET: the whole in whatever encoding, or the identity form from a byte on. */
export function openHeaders(etags: readonly string[], first: number | undefined): Record<string, string> {
  const encoding = first === undefined ? 'gzip' : 'identity';
  const headers: Record<string, string> = { ...acceptProblem, 'Accept-Encoding': encoding };
  const known = etags.filter((etag) => etagForm.test(etag));
  if (known.length > 0) headers['If-None-Match'] = known.join(', ');
  if (first !== undefined) headers['Range'] = `bytes=${first}-`;
  return headers;
}

export function parseAbilities(text: string, shown: string): RemoteAbilities {
  const fail = (state: string, cause?: unknown): FiletrackerError =>
    new FiletrackerError('protocol', `Cannot use the server at "${shown}": ${state}`, { cause });
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw fail('it does not tell which versions of the protocol it speaks', error);
  }
  const members: Partial<Record<keyof VersionAnswer, unknown>> =
    typeof parsed === 'object' && parsed !== null ? { ...parsed } : {};
  const { protocol_versions: offered, features } = members;
  const versions: readonly unknown[] = Array.isArray(offered) ? offered : [];
  const protocolVersion = spokenVersions.find((version) => versions.includes(version));
  if (protocolVersion === undefined) throw fail('it speaks no version of the protocol that this client does');
  const words: readonly unknown[] = Array.isArray(features) ? features : [];
  return { protocolVersion, features: new Set(words.filter((word) => typeof word === 'string')) };
}

/** The name under which the web server of protocol version 1 shows itself. */
const version1Server = /^filetracker\b/;

/**
 * What a 404 says of who sent it: a filetracker server of version 1 or 2; `none`, which is one as well, but at another
 * path; `unknown` where a proxy may have taken away what would tell, or no filetracker server is there.
 */
export function senderOfAbsence(
  headers: IncomingHttpHeaders,
): 'version-1' | 'version-2' | 'none' | 'unknown' {
  if (headerText(headers, exceptionCodeHeader.toLowerCase()) === 'protocol') return 'none';
  if (headers[exceptionHeader.toLowerCase()] !== undefined) return 'version-2';
  return version1Server.test(headerText(headers, 'server') ?? '') ? 'version-1' : 'unknown';
}

/** The end of an address that somebody copied from the address of a file. */
export const misleadingEnd = /\/(?:files|list|version)$/;

export function noServer(action: string, shown: string): FiletrackerError {
  const [end] = misleadingEnd.exec(shown) ?? [];
  const advice = end === undefined ? 'check the path in its URL' : `leave "${end}" out of its URL`;
  const state = `there is no filetracker server at "${shown}"; ${advice}`;
  return new FiletrackerError('unreachable', `Cannot ${action}: ${state}`, { retryable: false });
}

/** Undefined also for what is no date: a server's mistake is none of the caller's. */
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

/** Runs what reads headers; those that cannot be read are the server's mistake and not the caller's. */
export function readingResponse<T>(action: string, peer: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!isFiletrackerError(error) || error.code === 'protocol') throw error;
    const state = error.message.replace(/^Cannot read/, 'it sent what cannot be read:');
    throw new FiletrackerError('protocol', `Cannot ${action} at ${peer}: ${state}`, { cause: error });
  }
}

export function remoteFile(name: FileName, headers: IncomingHttpHeaders): RemoteFile {
  const version = versionOf(headers);
  if (version === undefined) {
    const state = 'the server does not tell its version, or not as a date';
    throw new FiletrackerError('protocol', `Cannot get "${name}": ${state}`);
  }
  return { name, version, size: sizeOf(headers), digest: digestOf(headers), etag: headers.etag };
}

/** The whole size of a content of which a 206 brings the part from `first` to the end. */
export function sizeOfPart(name: FileName, headers: IncomingHttpHeaders, first: number): number {
  const range = parseContentRange(headers['content-range'] ?? '');
  if (range !== undefined && range.first === first && range.last === range.size - 1) return range.size;
  throw new FiletrackerError('protocol', `Cannot get "${name}": the server sent another part than asked for`);
}

/** The bytes of a body, with what Node throws about its connection translated. */
export async function* translatedChunks(
  body: AsyncIterable<Buffer>,
  translate: (error: unknown) => unknown,
): AsyncGenerator<Buffer> {
  try {
    yield* body;
  } catch (error) {
    throw translate(error);
  }
}

export function putRequest(
  name: FileName,
  version: FileVersion,
  content: UploadContent,
  { protocolVersion, features }: RemoteAbilities,
): Omit<HttpRequest, 'action'> {
  const { transferSize } = content;
  const common = {
    'Content-Type': 'application/octet-stream',
    ...(transferSize === undefined ? {} : { 'Content-Length': transferSize }),
  };
  if (protocolVersion === 1) {
    const headers = { ...common, 'Last-Modified': formatDate(version) };
    return { method: 'PUT', path: filePath(name), headers, body: content.bytes };
  }
  const headers: Record<string, string | number> = {
    ...common,
    ...acceptProblem,
    'SHA256-Checksum': content.digest,
    'Logical-Size': content.size,
  };
  if (content.encoding !== 'identity') headers['Content-Encoding'] = content.encoding;
  return {
    method: 'PUT',
    path: `${filePath(name)}?${formatVersionQuery(version)}`,
    headers,
    body: content.bytes,
    // Asking costs a round trip, so a body that fits one packet or a few is sent at once.
    expectContinue: typeof content.bytes === 'function' && features.has('expect-continue'),
  };
}
