import { FiletrackerError } from '../../core/errors.ts';
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
import type { PutIntent, PutResult } from '../../store/file-store.ts';
import type { Precondition } from '../../core/file-version.ts';
import type { Exchange } from '../exchange.ts';
import { singleValue } from '../header-value.ts';
import { collectBody, frameOf, type BodyFrame } from '../connections/request-body.ts';
import type { Encoding } from '../../core/blob.ts';
import type { ServerContext } from './context.ts';

interface Upload {
  readonly intent: PutIntent;
  readonly encoding: Encoding;
  readonly frame: BodyFrame;
}

/** A part of a file must not be taken for the whole of it (RFC 9110, 14.5). */
function refusePart(contentRange: string | undefined, name: FileName): void {
  if (contentRange === undefined) return;
  const text = `Cannot store "${name}": Content-Range says that the body is a part of it; send the whole file without that header`;
  throw new FiletrackerError('invalid-argument', text);
}

/** Everything of a PUT that its headers tell; what is wrong there is refused before the body is read. */
function readUpload(exchange: Exchange, name: FileName, query: string): Upload {
  const { request } = exchange;
  const { headers } = request;
  const version = requiredVersion(query);
  refusePart(headers['content-range'], name);
  const encoding = parseContentEncoding(headers['content-encoding']);
  const frame = frameOf(request);
  const claims = parseClaims(singleValue(headers[digestHeader]), singleValue(headers[logicalSizeHeader]));
  const precondition = parsePrecondition(headers);
  const retryAgeMs = parseRetryAge(singleValue(headers[retryAgeHeader]));
  // Counted from the arrival of the request: its body may take hours.
  const firstSentMs = retryAgeMs === undefined ? undefined : Date.now() - retryAgeMs;
  const common = { name, version, precondition, firstSentMs };
  if (encoding !== 'identity' || frame.announcedSize === undefined) {
    return { intent: { ...common, claims }, encoding, frame };
  }
  // A plain body is as long as it says; knowing that lets the store refuse it before it is sent.
  const { digest, logicalSize = frame.announcedSize } = claims;
  if (logicalSize !== frame.announcedSize) {
    throw new FiletrackerError(
      'size-mismatch',
      `Cannot store "${name}": Logical-Size says ${logicalSize} bytes, Content-Length ${frame.announcedSize}`,
    );
  }
  return { intent: { ...common, claims: { digest, logicalSize } }, encoding, frame };
}

async function putSmall(
  exchange: Exchange,
  upload: Upload,
  sizeBytes: number,
  context: ServerContext,
): Promise<PutResult> {
  const { intent, encoding } = upload;
  const source = await collectBody(exchange.request, exchange.connection, sizeBytes);
  return context.store.put(
    intent,
    { source, encoding, announcedSize: sizeBytes },
    { sender: exchange.sender },
  );
}

async function putStreamed(exchange: Exchange, upload: Upload, context: ServerContext): Promise<PutResult> {
  const { intent, encoding, frame } = upload;
  const { request, connection } = exchange;
  const interruption = new AbortController();
  connection.beginReading(request, (error) => interruption.abort(error));
  try {
    const body = { source: request, encoding, announcedSize: frame.announcedSize };
    return await context.store.put(intent, body, { signal: interruption.signal, sender: exchange.sender });
  } catch (error) {
    // The store knows that it was interrupted; only the connection knows by what.
    throw interruption.signal.aborted ? interruption.signal.reason : error;
  } finally {
    connection.endReading();
  }
}

function sendStored(exchange: Exchange, result: PutResult): void {
  const removed = result.removed === true ? ['Removed', 'true'] : [];
  exchange.send(200, ['Last-Modified', formatDate(result.version), 'Content-Length', 0, ...removed]);
}

/**
 * Skipping an upload tells that its content is stored. Only those may learn it who may read everything, or
 * who send again what lies under this very name and may read that.
 */
async function mayLearnOf(intent: PutIntent, exchange: Exchange, context: ServerContext): Promise<boolean> {
  const { principal } = exchange;
  const { claims, name } = intent;
  if (claims.digest === undefined || principal === undefined) return false;
  if (principal.unrestricted || principal.may('read', '/')) return true;
  return principal.may('read', name) && (await context.store.stat(name))?.digest === claims.digest;
}

/** A condition on a digest tells whether a guess at the content is right, so it needs the right to read it. */
function requireRightOfCondition(exchange: Exchange, name: FileName, precondition?: Precondition): void {
  if (precondition?.kind === 'match' && precondition.digests !== undefined) exchange.require('read', name);
}

/**
 * PUT /files/{name}. All that the headers tell is looked at before anything of the body is read.
 */
export async function putFile(
  exchange: Exchange,
  name: FileName,
  query: string,
  context: ServerContext,
): Promise<void> {
  exchange.require('write', name);
  const upload = readUpload(exchange, name, query);
  requireRightOfCondition(exchange, name, upload.intent.precondition);
  if (exchange.expectsContinue) {
    const mayLink = await mayLearnOf(upload.intent, exchange, context);
    const { announcedSize } = upload.frame;
    const { sender } = exchange;
    const forecast = await context.store.forecast(upload.intent, { mayLink, announcedSize, sender });
    if (forecast.kind === 'settled') return sendStored(exchange, forecast.result);
    exchange.continue();
  }
  const sizeBytes = upload.frame.announcedSize;
  if (sizeBytes === undefined || sizeBytes > mainThreadBodyMaxBytes) {
    return sendStored(exchange, await putStreamed(exchange, upload, context));
  }
  if (sizeBytes > 0) return sendStored(exchange, await putSmall(exchange, upload, sizeBytes, context));
  const body = { source: Buffer.alloc(0), encoding: upload.encoding, announcedSize: 0 };
  return sendStored(exchange, await context.store.put(upload.intent, body, { sender: exchange.sender }));
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
  // A newer version that stays is told; a version that went is what the client named.
  const stays = result.removed ? [] : ['Last-Modified', formatDate(result.version)];
  exchange.send(200, ['Content-Length', 0, ...stays]);
}
