import type { IncomingHttpHeaders } from 'node:http';
import type { Encoding } from '../../core/blob.ts';
import { FiletrackerError } from '../../core/errors.ts';
import type { FileName } from '../../core/file-name.ts';
import { lookUpsMax, seekFreeBytes } from '../../core/limits.ts';
import { acceptedEncodings, type AcceptedEncodings } from '../../protocol/content-encoding.ts';
import { formatDate, readDate } from '../../protocol/dates.ts';
import { fileType } from '../../protocol/endpoints.ts';
import { etagOf, matchHolds, namedEncoding } from '../../protocol/etags.ts';
import {
  formatContentRange,
  formatUnsatisfiedRange,
  ifRangeHolds,
  parseRange,
} from '../../protocol/ranges.ts';
import { filePath } from '../../protocol/request-target.ts';
import { damagedBlob, lostBlob } from '../../store/get.ts';
import type { Entry, OpenFile, ReadOptions, StoredFile } from '../../store/file-store.ts';
import type { FlatHeaders } from '../connections/messages.ts';
import { singleValue, type Exchange } from '../exchange.ts';
import { untilReadable } from '../seek-queue.ts';
import type { ServerContext } from './context.ts';

const asStored: ReadOptions = { form: 'stored' };
const decoded: ReadOptions = { form: 'identity' };

/** Lifetime of a URL of the object store: time enough to begin a download. */
const redirectLifetimeSeconds = 300;

/** A range of the identity bytes, both ends inclusive. */
type Part = NonNullable<ReadOptions['range']>;

/**
 * GET /files/{name}: looks the file up, evaluates conditions and range (RFC 9110, 13.2.2), opens it, sends it. Begins again
 * only if the bytes were moved or collected between look-up and opening.
 */
export async function getFile(exchange: Exchange, name: FileName, context: ServerContext): Promise<void> {
  exchange.require('read', name);
  const { rawHeaders } = exchange.request;
  const plain = plainlyAccepted(rawHeaders);
  const accepted = plain ?? acceptedEncodings(exchange.request.headers['accept-encoding']);
  for (let lookUps = 1; ; lookUps += 1) {
    const found = await context.store.lookUp(name);
    if (found === undefined) return sendAbsent(exchange, name, context);
    const { entry } = found;
    let part: Part | undefined;
    if (plain === undefined) {
      const { headers } = exchange.request;
      if (sendIfUnchanged(exchange, entry, accepted)) return undefined;
      const wanted = partOf(headers, entry, accepted);
      if (wanted === 'unsatisfiable') return sendUnsatisfiable(exchange, entry);
      part = wanted;
    } else if (context.redirectDownloads && encodingFor(entry, accepted) === entry.encoding) {
      const url = await found.redirectUrl(redirectLifetimeSeconds);
      if (url !== undefined) return sendRedirect(exchange, entry, url);
    }
    const file = await (part === undefined
      ? found.open(accepted.gzip ? asStored : decoded)
      : openPart(exchange, found, part, context));
    if (file !== undefined) return sendFile(exchange, file, part);
    if (lookUps === lookUpsMax) throw lostBlob(entry);
  }
}

/** HEAD /files/{name}: the headers of the same GET. A range counts for GET alone (RFC 9110, 14.2). */
export async function headFile(exchange: Exchange, name: FileName, context: ServerContext): Promise<void> {
  exchange.require('read', name);
  const found = await context.store.lookUp(name);
  if (found === undefined) return sendAbsent(exchange, name, context);
  const { entry } = found;
  const plain = plainlyAccepted(exchange.request.rawHeaders);
  const accepted = plain ?? acceptedEncodings(exchange.request.headers['accept-encoding']);
  if (plain === undefined && sendIfUnchanged(exchange, entry, accepted)) return undefined;
  if (found.damaged) {
    // With the version, which a client needs to remove or replace the file.
    const error = damagedBlob(entry, 'it is known to be damaged');
    return exchange.fail(error, ['Last-Modified', formatDate(entry.version)]);
  }
  const encoding = encodingFor(entry, accepted);
  const sizeBytes = encoding === 'identity' ? entry.logicalSize : entry.storedSize;
  return exchange.send(200, headersOf(entry, encoding, sizeBytes));
}

/** Headers that make a GET more than "the file as it is now". */
const conditionalHeaders: ReadonlySet<string> = new Set([
  'range',
  'if-range',
  'if-match',
  'if-none-match',
  'if-modified-since',
  'if-unmodified-since',
]);
const acceptHeader = 'accept-encoding';

/**
 * The encodings that a plain GET or HEAD accepts; `undefined` if a header asks for more. Reads the raw headers: Node makes
 * its object of them at the first use, which a small GET is faster without.
 */
function plainlyAccepted(rawHeaders: readonly string[]): AcceptedEncodings | undefined {
  let accepted: string | undefined;
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const { length } = rawHeaders[index] ?? '';
    // The length alone rules most headers out.
    if (length !== 5 && length !== 8 && length !== 13 && length !== 15 && length !== 17 && length !== 19)
      continue;
    const name = rawHeaders[index]?.toLowerCase() ?? '';
    if (conditionalHeaders.has(name)) return undefined;
    if (name !== acceptHeader) continue;
    const value = rawHeaders[index + 1] ?? '';
    accepted = accepted === undefined ? value : `${accepted}, ${value}`;
  }
  return acceptedEncodings(accepted);
}

/** The encoding in which a client receives an entry. */
function encodingFor(entry: Entry, accepted: AcceptedEncodings): Encoding {
  return accepted.gzip ? entry.encoding : 'identity';
}

/**
 * Evaluates the conditions of a request in the order of RFC 9110, 13.2.2; sends a 304 if one says so.
 * @returns whether it was sent. @throws FiletrackerError `precondition-failed`.
 */
function sendIfUnchanged(exchange: Exchange, entry: Entry, accepted: AcceptedEncodings): boolean {
  const { headers } = exchange.request;
  const match = headers['if-match'];
  const unmodifiedSince = match === undefined ? readDate(headers['if-unmodified-since'] ?? '') : undefined;
  if (match !== undefined && !matchHolds(match, entry.digest)) throw failedCondition(entry, 'If-Match');
  if (unmodifiedSince !== undefined && entry.version > unmodifiedSince) {
    throw failedCondition(entry, 'If-Unmodified-Since');
  }
  const encoding = unchangedEncoding(headers, entry, encodingFor(entry, accepted));
  if (encoding === undefined) return false;
  const tag = etagOf(entry.digest, encoding);
  exchange.send(304, ['ETag', tag, 'Last-Modified', formatDate(entry.version), 'Vary', 'Accept-Encoding']);
  return true;
}

function failedCondition(entry: Entry, header: string): FiletrackerError {
  return new FiletrackerError(
    'precondition-failed',
    `Cannot get "${entry.name}": the condition of ${header} is not met`,
  );
}

/** The encoding whose tag a 304 carries; `undefined` if the client needs the file. */
function unchangedEncoding(
  headers: IncomingHttpHeaders,
  entry: Entry,
  encoding: Encoding,
): Encoding | undefined {
  const noneMatch = headers['if-none-match'];
  if (noneMatch !== undefined) return namedEncoding(noneMatch, entry.digest, encoding);
  const modifiedSince = readDate(headers['if-modified-since'] ?? '');
  return modifiedSince !== undefined && entry.version <= modifiedSince ? encoding : undefined;
}

/**
 * The part that a Range header asks for; `undefined` for the whole. Parts are of the identity form. If the client does
 * not accept that form, or holds another content (If-Range), the range is ignored.
 */
function partOf(
  headers: IncomingHttpHeaders,
  entry: Entry,
  accepted: AcceptedEncodings,
): Part | 'unsatisfiable' | undefined {
  const { range } = headers;
  const ifRange = singleValue(headers['if-range']);
  if (range === undefined || !accepted.identity) return undefined;
  if (ifRange !== undefined && !ifRangeHolds(ifRange, entry.digest, entry.version)) return undefined;
  const requested = parseRange(range, entry.logicalSize);
  if (requested.kind === 'unsatisfiable') return 'unsatisfiable';
  return requested.kind === 'part' ? requested : undefined;
}

/** Opens a part of a file. A part far into a compressed content waits for its sender's turn. */
async function openPart(
  exchange: Exchange,
  found: StoredFile,
  range: Part,
  context: ServerContext,
): Promise<OpenFile | undefined> {
  const options: ReadOptions = { form: 'identity', range };
  if (found.entry.encoding === 'identity' || range.first <= seekFreeBytes) return found.open(options);
  const { connection, sender } = exchange;
  const endSeek = await context.seeks.enter(sender);
  try {
    if (connection.socket.destroyed) {
      throw new FiletrackerError('aborted', 'Cannot send a part: the client is gone');
    }
    const file = await found.open(options);
    if (file === undefined || Buffer.isBuffer(file.body)) return file;
    await untilReadable(file.body, connection);
    // Until the response begins, an error still has a status of its own.
    if (file.body.errored !== null) throw file.body.errored;
    return file;
  } finally {
    endSeek();
  }
}

/** Not `async`: a body in memory is sent by the time it returns, without a promise. */
function sendFile(exchange: Exchange, file: OpenFile, part: Part | undefined): Promise<void> | undefined {
  const { entry, encoding, size, body } = file;
  const headers = headersOf(entry, encoding, size);
  if (part !== undefined) {
    headers.push('Content-Range', formatContentRange(part.first, part.last, entry.logicalSize));
  }
  const status = part === undefined ? 200 : 206;
  if (!Buffer.isBuffer(body)) return exchange.stream(status, headers, body);
  exchange.send(status, headers, body);
  return undefined;
}

function headersOf(entry: Entry, encoding: Encoding, sizeBytes: number): FlatHeaders {
  const headers: FlatHeaders = [
    'Content-Type',
    fileType,
    'Content-Length',
    sizeBytes,
    ...describingHeaders(entry, encoding),
    'Accept-Ranges',
    'bytes',
    'Vary',
    'Accept-Encoding',
  ];
  if (encoding !== 'identity') headers.push('Content-Encoding', encoding);
  return headers;
}

/** The headers that describe a file, in whatever way its bytes travel. The client has their names in `redirects.ts`. */
function describingHeaders(entry: Entry, encoding: Encoding): FlatHeaders {
  return [
    'Last-Modified',
    formatDate(entry.version),
    'Logical-Size',
    entry.logicalSize,
    'SHA256-Checksum',
    entry.digest,
    'ETag',
    etagOf(entry.digest, encoding),
  ];
}

/** A 404; or, during a migration by redirect, a redirect to the server that may still have the file. */
function sendAbsent(exchange: Exchange, name: FileName, context: ServerContext): void {
  if (context.fallbackUrl === undefined) {
    throw new FiletrackerError('not-found', `Cannot get "${name}": there is no such file`);
  }
  exchange.send(307, ['Location', context.fallbackUrl + filePath(name), 'Content-Length', 0]);
}

function sendUnsatisfiable(exchange: Exchange, { name, logicalSize }: Entry): void {
  const error = new FiletrackerError(
    'range-not-satisfiable',
    `Cannot get a part of "${name}": the range is beyond its ${logicalSize} bytes`,
  );
  exchange.fail(error, ['Content-Range', formatUnsatisfiedRange(logicalSize)]);
}

/** A redirect to the object store, with the headers that describe the file: the object store does not know them. */
function sendRedirect(exchange: Exchange, entry: Entry, url: string): void {
  exchange.send(307, [
    'Location',
    url,
    ...describingHeaders(entry, entry.encoding),
    // The URL is a secret as long as it is valid.
    'Cache-Control',
    'no-store',
    'Content-Length',
    0,
  ]);
}
