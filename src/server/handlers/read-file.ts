import type { IncomingHttpHeaders } from 'node:http';
import type { Encoding } from '../../core/blob.ts';
import { FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import type { FileName } from '../../core/file-name.ts';
import { seekFreeBytes } from '../../core/limits.ts';
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
import { damagedBlob } from '../../store/file-reader.ts';
import type { Entry, OpenFile, ReadOptions } from '../../store/file-store.ts';
import type { Exchange, FlatHeaders } from '../exchange.ts';
import { singleValue } from '../header-value.ts';
import { untilReadable } from '../seek-queue.ts';
import type { ServerContext } from './context.ts';

const asStored: ReadOptions = { form: 'stored' };
const decoded: ReadOptions = { form: 'identity' };

/** How long an address of the object store is good for: time enough to begin to read. */
const directAddressLifetimeSeconds = 300;

/** Headers that make a GET more than "the file as it is now". */
const askingHeaders: ReadonlySet<string> = new Set([
  'range',
  'if-range',
  'if-match',
  'if-none-match',
  'if-modified-since',
  'if-unmodified-since',
]);
const acceptHeader = 'accept-encoding';

/**
 * The encodings that a plain GET or HEAD takes; undefined where a header asks for more. Reads the headers as
 * they came: Node makes its object of them only when that is first used, and a small GET does better without.
 */
function plainlyAccepted(rawHeaders: readonly string[]): AcceptedEncodings | undefined {
  let accepted: string | undefined;
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const { length } = rawHeaders[index] ?? '';
    // Most headers are told from these by their length alone.
    if (length !== 5 && length !== 8 && length !== 13 && length !== 15 && length !== 17 && length !== 19)
      continue;
    const name = rawHeaders[index]?.toLowerCase() ?? '';
    if (askingHeaders.has(name)) return undefined;
    if (name !== acceptHeader) continue;
    const value = rawHeaders[index + 1] ?? '';
    accepted = accepted === undefined ? value : `${accepted}, ${value}`;
  }
  return acceptedEncodings(accepted);
}

/** How often a conditional read begins anew because the file was overwritten between its two steps. */
const attemptsMax = 5;

function headersOf(entry: Entry, encoding: Encoding, sizeBytes: number): FlatHeaders {
  const headers: FlatHeaders = [
    'Content-Type',
    fileType,
    'Content-Length',
    sizeBytes,
    'Last-Modified',
    formatDate(entry.version),
    'Logical-Size',
    entry.logicalSize,
    'SHA256-Checksum',
    entry.digest,
    'ETag',
    etagOf(entry.digest, encoding),
    'Accept-Ranges',
    'bytes',
    'Vary',
    'Accept-Encoding',
  ];
  if (encoding !== 'identity') headers.push('Content-Encoding', encoding);
  return headers;
}

/** The encoding in which a client gets an entry. */
function encodingFor(entry: Entry, accepted: AcceptedEncodings): Encoding {
  return accepted.gzip ? entry.encoding : 'identity';
}

/** No such file: a 404, or in a migration the place where it may still be. */
function answerAbsent(exchange: Exchange, name: FileName, context: ServerContext): void {
  if (context.fallbackUrl === undefined) {
    throw new FiletrackerError('not-found', `Cannot get "${name}": there is no such file`);
  }
  exchange.send(307, ['Location', context.fallbackUrl + filePath(name), 'Content-Length', 0]);
}

/** @throws FiletrackerError `precondition-failed` (RFC 9110, 13.2.2, steps 1 and 2). */
function requireConditions(headers: IncomingHttpHeaders, entry: Entry): void {
  const match = headers['if-match'];
  if (match !== undefined) {
    if (matchHolds(match, entry.digest)) return;
    throw new FiletrackerError('precondition-failed', `Cannot get "${entry.name}": If-Match does not hold`);
  }
  const unmodifiedSince = readDate(headers['if-unmodified-since'] ?? '');
  if (unmodifiedSince === undefined || entry.version <= unmodifiedSince) return;
  throw new FiletrackerError(
    'precondition-failed',
    `Cannot get "${entry.name}": If-Unmodified-Since does not hold`,
  );
}

/** The encoding whose tag a 304 carries, or undefined where there is none (RFC 9110, 13.2.2, steps 3 and 4). */
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

function sendUnchanged(exchange: Exchange, entry: Entry, encoding: Encoding): void {
  exchange.send(304, [
    'ETag',
    etagOf(entry.digest, encoding),
    'Last-Modified',
    formatDate(entry.version),
    'Vary',
    'Accept-Encoding',
  ]);
}

/** Not `async`: what lies in memory is sent by the time it returns, without a promise. */
function sendFile(
  exchange: Exchange,
  status: number,
  headers: FlatHeaders,
  file: OpenFile,
): Promise<void> | undefined {
  const { body } = file;
  if (!Buffer.isBuffer(body)) return exchange.stream(status, headers, body);
  exchange.send(status, headers, body);
  return undefined;
}

/**
 * The part that a Range header asks for, or undefined for the whole. Parts are of the identity form; where
 * the client forbids that one, or holds another content by now (If-Range), the range is left aside.
 */
function partOf(
  headers: IncomingHttpHeaders,
  entry: Entry,
  accepted: AcceptedEncodings,
): { first: number; last: number } | 'unsatisfiable' | undefined {
  const { range } = headers;
  const ifRange = singleValue(headers['if-range']);
  if (range === undefined || !accepted.identity) return undefined;
  if (ifRange !== undefined && !ifRangeHolds(ifRange, entry.digest, entry.version)) return undefined;
  const requested = parseRange(range, entry.logicalSize);
  if (requested.kind === 'unsatisfiable') return 'unsatisfiable';
  return requested.kind === 'part' ? requested : undefined;
}

/** Opens a file if it still is what it was when the conditions were looked at; undefined where it is not. */
async function reopen(
  context: ServerContext,
  entry: Entry,
  options: ReadOptions,
): Promise<OpenFile | undefined> {
  try {
    const file = await context.store.open(entry.name, options);
    if (file === undefined) return undefined;
    if (file.entry.digest === entry.digest && file.entry.version === entry.version) return file;
    if (!Buffer.isBuffer(file.body)) file.body.destroy();
    return undefined;
  } catch (error) {
    // A range that lay within the content that was there before.
    if (isFiletrackerError(error, 'range-not-satisfiable')) return undefined;
    throw error;
  }
}

/** Opens a part of a file; far into a compressed content only when it is the sender's turn. */
async function reopenPart(
  exchange: Exchange,
  entry: Entry,
  range: { first: number; last: number },
  context: ServerContext,
): Promise<OpenFile | undefined> {
  const options: ReadOptions = { form: 'identity', range };
  if (entry.encoding === 'identity' || range.first <= seekFreeBytes) return reopen(context, entry, options);
  const { connection, sender } = exchange;
  const endSeek = await context.seeks.enter(sender);
  try {
    if (connection.socket.destroyed)
      throw new FiletrackerError('aborted', 'Cannot send a part: the client is gone');
    const file = await reopen(context, entry, options);
    if (file !== undefined && !Buffer.isBuffer(file.body)) await untilReadable(file.body, connection);
    // Until then an error still has a status of its own.
    if (file !== undefined && !Buffer.isBuffer(file.body) && file.body.errored !== null)
      throw file.body.errored;
    return file;
  } finally {
    endSeek();
  }
}

/**
 * Answers a GET with conditions or a range: looks at the entry first, then opens the very file that the
 * conditions were true of.
 */
async function getConditional(exchange: Exchange, name: FileName, context: ServerContext): Promise<void> {
  const { headers } = exchange.request;
  const accepted = acceptedEncodings(headers['accept-encoding']);
  for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
    const entry = await context.store.stat(name);
    if (entry === undefined) return answerAbsent(exchange, name, context);
    requireConditions(headers, entry);
    const unchanged = unchangedEncoding(headers, entry, encodingFor(entry, accepted));
    if (unchanged !== undefined) return sendUnchanged(exchange, entry, unchanged);
    const part = partOf(headers, entry, accepted);
    if (part === 'unsatisfiable') {
      const error = new FiletrackerError(
        'range-not-satisfiable',
        `Cannot get a part of "${name}": the range lies outside of its ${entry.logicalSize} bytes`,
      );
      return exchange.fail(error, ['Content-Range', formatUnsatisfiedRange(entry.logicalSize)]);
    }
    if (part === undefined) {
      const file = await reopen(context, entry, accepted.gzip ? asStored : decoded);
      if (file === undefined) continue;
      return sendFile(exchange, 200, headersOf(file.entry, file.encoding, file.size), file);
    }
    const file = await reopenPart(exchange, entry, part, context);
    if (file === undefined) continue;
    const contentRange = formatContentRange(part.first, part.last, entry.logicalSize);
    const partHeaders = headersOf(entry, 'identity', file.size);
    partHeaders.push('Content-Range', contentRange);
    return sendFile(exchange, 206, partHeaders, file);
  }
  throw new FiletrackerError(
    'busy',
    `Cannot get "${name}": it is being overwritten again and again, try later`,
  );
}

/**
 * Sends a reader to where the bytes are, if they can be had there in a form that the reader takes. The headers
 * that describe the file come with this answer: the other place does not know them.
 */
async function redirect(
  exchange: Exchange,
  name: FileName,
  accepted: AcceptedEncodings,
  context: ServerContext,
): Promise<boolean> {
  const direct = await context.store.directAddress(name, directAddressLifetimeSeconds);
  if (direct === undefined || encodingFor(direct.entry, accepted) !== direct.entry.encoding) return false;
  const { entry, url } = direct;
  exchange.send(307, [
    'Location',
    url,
    'Last-Modified',
    formatDate(entry.version),
    'Logical-Size',
    entry.logicalSize,
    'SHA256-Checksum',
    entry.digest,
    'ETag',
    etagOf(entry.digest, entry.encoding),
    // The address is a secret for as long as it is good.
    'Cache-Control',
    'no-store',
    'Content-Length',
    0,
  ]);
  return true;
}

/** GET /files/{name}. */
export async function getFile(exchange: Exchange, name: FileName, context: ServerContext): Promise<void> {
  exchange.require('read', name);
  const accepted = plainlyAccepted(exchange.request.rawHeaders);
  if (accepted === undefined) return getConditional(exchange, name, context);
  if (context.redirectDownloads && (await redirect(exchange, name, accepted, context))) return undefined;
  const file = await context.store.open(name, accepted.gzip ? asStored : decoded);
  if (file === undefined) return answerAbsent(exchange, name, context);
  return sendFile(exchange, 200, headersOf(file.entry, file.encoding, file.size), file);
}

/** HEAD /files/{name}: the headers of the same GET; a range counts for GET alone (RFC 9110, 14.2). */
export async function headFile(exchange: Exchange, name: FileName, context: ServerContext): Promise<void> {
  exchange.require('read', name);
  const entry = await context.store.stat(name);
  if (entry === undefined) return answerAbsent(exchange, name, context);
  let accepted = plainlyAccepted(exchange.request.rawHeaders);
  if (accepted === undefined) {
    const { headers } = exchange.request;
    accepted = acceptedEncodings(headers['accept-encoding']);
    requireConditions(headers, entry);
    const unchanged = unchangedEncoding(headers, entry, encodingFor(entry, accepted));
    if (unchanged !== undefined) return sendUnchanged(exchange, entry, unchanged);
  }
  if (entry.damaged === true) {
    // The version is told all the same: who wants to remove or replace the file needs it.
    const error = damagedBlob(entry, 'it is known to be damaged');
    return exchange.fail(error, ['Last-Modified', formatDate(entry.version)]);
  }
  const encoding = encodingFor(entry, accepted);
  const sizeBytes = encoding === 'identity' ? entry.logicalSize : entry.storedSize;
  return exchange.send(200, headersOf(entry, encoding, sizeBytes));
}
