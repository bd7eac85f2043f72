import { FiletrackerError } from '../../core/errors.ts';
import type { Encoding } from '../../core/blob.ts';
import type { FileName } from '../../core/file-name.ts';
import { mainThreadBodyMaxBytes } from '../../core/limits.ts';
import {
  digestHeader,
  logicalSizeHeader,
  parseClaims,
  parseRetryAge,
  retryAgeHeader,
} from '../../protocol/content-claims.ts';
import { parseContentEncoding } from '../../protocol/content-encoding.ts';
import { formatDate } from '../../protocol/dates.ts';
import { parsePrecondition } from '../../protocol/preconditions.ts';
import { requiredVersion } from '../../protocol/query.ts';
import type { FoundBeforePut, PutBody, PutIntent, PutResult } from '../../store/file-store.ts';
import type { Precondition } from '../../core/file-version.ts';
import { singleValue, type Exchange } from '../exchange.ts';
import { collectBody, frameOf } from '../connections/request-body.ts';
import type { ServerContext } from './context.ts';

const nothing = Buffer.alloc(0);

/** What the headers of a PUT say. */
interface PutHeaders {
  readonly intent: PutIntent;
  readonly encoding: Encoding;
  /** Bytes of the body; `undefined` for a chunked one. */
  readonly announcedSize: number | undefined;
}

/** PUT /files/{name}. Refuses all that the headers rule out before it reads anything of the body. */
export async function putFile(
  exchange: Exchange,
  name: FileName,
  query: string,
  context: ServerContext,
): Promise<void> {
  exchange.require('write', name);
  const put = readPutHeaders(exchange, name, query);
  const { intent, announcedSize } = put;
  requireRightOfCondition(exchange, name, intent.precondition);
  let found: FoundBeforePut | undefined;
  if (exchange.expectsContinue) {
    const mayLink = await mayLearnOf(intent, exchange, context);
    const outcome = await context.store.putWithoutBody(intent, { mayLink, announcedSize });
    if (outcome.kind === 'settled') {
      context.uploads.count(outcome.result);
      return sendStored(exchange, outcome.result);
    }
    found = outcome.found;
    await context.uploads.check({ name, sender: exchange.sender, announcedSize });
    exchange.continue();
  } else if (context.store.beforePut !== undefined) {
    await context.store.beforePut(intent);
  }
  const isSmall = announcedSize !== undefined && announcedSize <= mainThreadBodyMaxBytes;
  const result = await (isSmall
    ? putSmall(exchange, put, announcedSize, found, context)
    : putStreamed(exchange, put, found, context));
  return sendStored(exchange, result);
}

/** DELETE /files/{name}. */
export async function deleteFile(
  exchange: Exchange,
  name: FileName,
  query: string,
  context: ServerContext,
): Promise<void> {
  exchange.require('delete', name);
  const { headers } = exchange.request;
  const version = requiredVersion(query);
  const precondition = parsePrecondition(headers);
  requireRightOfCondition(exchange, name, precondition);
  const result = await context.store.remove({ name, version, precondition });
  if (result === undefined) {
    throw new FiletrackerError('not-found', `Cannot delete "${name}": there is no such file`);
  }
  // The client knows the version that it removed, but not a newer one that stays.
  const stays = result.removed ? [] : ['Last-Modified', formatDate(result.version)];
  exchange.send(200, ['Content-Length', 0, ...stays]);
}

/** Parses the headers of a PUT. @throws FiletrackerError if they are wrong. */
function readPutHeaders(exchange: Exchange, name: FileName, query: string): PutHeaders {
  const { request } = exchange;
  const { headers } = request;
  const version = requiredVersion(query);
  // A part of a file must not be taken for the whole of it (RFC 9110, 14.5).
  if (headers['content-range'] !== undefined) {
    const text = `Cannot store "${name}": Content-Range says that the body is a part of it; send the whole file without that header`;
    throw new FiletrackerError('invalid-argument', text);
  }
  const encoding = parseContentEncoding(headers['content-encoding']);
  const { announcedSize } = frameOf(request);
  const claims = parseClaims(singleValue(headers[digestHeader]), singleValue(headers[logicalSizeHeader]));
  const precondition = parsePrecondition(headers);
  const retryAgeMs = parseRetryAge(singleValue(headers[retryAgeHeader]));
  // Counted from the arrival of the request: its body may take hours.
  const firstSentMs = retryAgeMs === undefined ? undefined : Date.now() - retryAgeMs;
  const common = { name, version, precondition, firstSentMs };
  if (encoding !== 'identity' || announcedSize === undefined) {
    return { intent: { ...common, claims }, encoding, announcedSize };
  }
  // A plain body has its Content-Length as its logical size, by which the store can refuse it before it is sent.
  const { digest, logicalSize = announcedSize } = claims;
  if (logicalSize !== announcedSize) {
    throw new FiletrackerError(
      'size-mismatch',
      `Cannot store "${name}": Logical-Size says ${logicalSize} bytes, Content-Length ${announcedSize}`,
    );
  }
  return { intent: { ...common, claims: { digest, logicalSize } }, encoding, announcedSize };
}

/**
 * A skipped upload reveals that its content is stored. Only a client may learn that which may read everything, or
 * which sends again what is stored under this very name and may read that.
 */
async function mayLearnOf(intent: PutIntent, exchange: Exchange, context: ServerContext): Promise<boolean> {
  const { principal } = exchange;
  const { claims, name } = intent;
  if (claims.digest === undefined || principal === undefined) return false;
  if (principal.unrestricted || principal.may('read', '/')) return true;
  return principal.may('read', name) && (await context.store.lookUp(name))?.entry.digest === claims.digest;
}

/** A condition on a digest reveals whether a guess at the content is right, so it needs the right to read. */
function requireRightOfCondition(exchange: Exchange, name: FileName, precondition?: Precondition): void {
  if (precondition?.kind === 'match' && precondition.digests !== undefined) exchange.require('read', name);
}

/** Collects a small body first: that costs less than a stream through the store. */
async function putSmall(
  exchange: Exchange,
  { intent, encoding }: PutHeaders,
  announcedSize: number,
  found: FoundBeforePut | undefined,
  context: ServerContext,
): Promise<PutResult> {
  const { connection, sender } = exchange;
  const source = announcedSize === 0 ? nothing : await collectBody(exchange.body, connection, announcedSize);
  const body: PutBody = { source, encoding, announcedSize };
  return context.uploads.run({ name: intent.name, sender, announcedSize }, () =>
    context.store.put(intent, body, { found }),
  );
}

async function putStreamed(
  exchange: Exchange,
  { intent, encoding, announcedSize }: PutHeaders,
  found: FoundBeforePut | undefined,
  context: ServerContext,
): Promise<PutResult> {
  const { connection, sender, body: source } = exchange;
  const interruption = new AbortController();
  if (!Buffer.isBuffer(source)) connection.beginReading(source, (error) => interruption.abort(error));
  try {
    const upload = { name: intent.name, sender, announcedSize, signal: interruption.signal };
    const freesPieces = !Buffer.isBuffer(source);
    const body: PutBody = { source, encoding, announcedSize, freesPieces };
    return await context.uploads.run(upload, (signal) => context.store.put(intent, body, { signal, found }));
  } catch (error) {
    // The store knows that it was interrupted; only the connection knows why.
    throw interruption.signal.aborted ? interruption.signal.reason : error;
  } finally {
    connection.endReading();
  }
}

function sendStored(exchange: Exchange, result: PutResult): void {
  const removed = result.removed === true ? ['Removed', 'true'] : [];
  exchange.send(200, ['Last-Modified', formatDate(result.version), 'Content-Length', 0, ...removed]);
}
