import { digestFromBytes } from '../../core/digest.ts';
import type { FileName } from '../../core/file-name.ts';
import type { PutChange, PutContent, PutOutcome, RemoveChange, RemoveOutcome } from '../catalog.ts';
import { malformedFrame, prefixSizeBytes } from './frames.ts';

// Batches: the usual changes and their usual outcomes, many in one frame. All others travel as JSON. Numbers are little
// endian; changes follow one another up to the end of the frame, and so do outcomes.
//
//   offset  size  field of a change
//        0     4  length of the whole change
//        4     4  id of the request
//        8     1  1 put, 2 removal
//        9     1  flags: bit 0 gzip; bits 1-2 the content: 0 stored, 1 inline, 2 staged; bit 3 the offered size is stated
//       10     2  length of the name
//       12     6  version (signed)
//       18     6  logical size            \
//       24     6  stored size              |
//       30     6  offered size             | only in a put
//       36     2  length of the staged id  |
//       38    32  digest                  /
//        …     …  name; in a put also the staged id and the inline bytes
//
//   offset  size  field of an outcome
//        0     4  id of the request
//        4     1  the outcome: its place in `outcomeKinds`
//        5     6  version (signed), if it has one

const putHeaderSizeBytes = 70;
const removeHeaderSizeBytes = 18;
const putCode = 1;
const removeCode = 2;
const gzipFlag = 1;
const offeredFlag = 8;
const contentShift = 1;
const contentMask = 3;
const contentKinds = ['stored', 'inline', 'staged'] as const;

const outcomeSizeBytes = 11;
const outcomeKinds = [
  'stored',
  'deduplicated',
  'removed',
  'superseded',
  'absent',
  'precondition-failed',
  'content-missing',
] as const;

/** Content of a batch; far below the limit of a frame. */
export const batchSizeMaxBytes = 512 * 1024;

export type BatchedChange =
  | { readonly kind: 'put'; readonly id: number; readonly change: PutChange }
  | { readonly kind: 'remove'; readonly id: number; readonly change: RemoveChange };

export interface BatchedOutcome {
  readonly id: number;
  readonly outcome: PutOutcome | RemoveOutcome;
}

/** Whether a batch can carry a change: not one with a condition, nor one that repeats an earlier request. */
export function fitsBatch(change: PutChange | RemoveChange): boolean {
  if (change.precondition !== undefined || change.stoodBefore !== undefined) return false;
  return !('firstSentMs' in change) || change.firstSentMs === undefined;
}

/** Bytes of a change in a batch. */
export function batchedSizeBytes({ kind, change }: BatchedChange): number {
  const nameSize = Buffer.byteLength(change.name);
  if (kind === 'remove') return removeHeaderSizeBytes + nameSize;
  return putHeaderSizeBytes + nameSize + contentSize(change.content);
}

function contentSize(content: PutContent): number {
  switch (content.kind) {
    case 'inline':
      return content.bytes.length;
    case 'staged':
      return Buffer.byteLength(content.stagedId);
    case 'stored':
      return 0;
  }
}

/** The frame of a batch; `sizeBytes` is the sum of the sizes of its changes. */
export function encodeChanges(changes: readonly BatchedChange[], sizeBytes: number): Buffer {
  const frame = newFrame(sizeBytes);
  let at = prefixSizeBytes;
  for (const batched of changes) at = encodeChange(batched, frame, at);
  return frame;
}

function newFrame(contentSizeBytes: number): Buffer {
  const frame = Buffer.allocUnsafe(prefixSizeBytes + contentSizeBytes);
  frame.writeUInt32LE(4 + contentSizeBytes, 0);
  frame.writeUInt32LE(0, 4);
  return frame;
}

function encodeChange(batched: BatchedChange, frame: Buffer, at: number): number {
  const { kind, id, change } = batched;
  const isPut = kind === 'put';
  frame.writeUInt32LE(id, at + 4);
  frame[at + 8] = isPut ? putCode : removeCode;
  frame[at + 9] = isPut ? flagsOf(change) : 0;
  frame.writeIntLE(change.version, at + 12, 6);
  const nameStart = at + (isPut ? putHeaderSizeBytes : removeHeaderSizeBytes);
  const nameSize = frame.write(change.name, nameStart, 'utf8');
  frame.writeUInt16LE(nameSize, at + 10);
  let end = nameStart + nameSize;
  if (isPut) end = encodePut(change, frame, at, end);
  frame.writeUInt32LE(end - at, at);
  return end;
}

function flagsOf({ encoding, content, offeredSize }: PutChange): number {
  const gzip = encoding === 'gzip' ? gzipFlag : 0;
  const offered = offeredSize === undefined ? 0 : offeredFlag;
  return gzip | offered | (contentKinds.indexOf(content.kind) << contentShift);
}

/** Writes the fields that only a put has; returns the end of the change. */
function encodePut(change: PutChange, frame: Buffer, at: number, contentStart: number): number {
  const { content, logicalSize, storedSize, offeredSize = 0, digest } = change;
  frame.writeUIntLE(logicalSize, at + 18, 6);
  frame.writeUIntLE(storedSize, at + 24, 6);
  frame.writeUIntLE(offeredSize, at + 30, 6);
  frame.write(digest, at + 38, 'hex');
  const stagedSize = content.kind === 'staged' ? frame.write(content.stagedId, contentStart, 'utf8') : 0;
  frame.writeUInt16LE(stagedSize, at + 36);
  const inlineSize = content.kind === 'inline' ? content.bytes.copy(frame, contentStart) : 0;
  return contentStart + stagedSize + inlineSize;
}

/** The changes of a batch. Inline bytes are views of it. @throws FiletrackerError `protocol`. */
export function* decodeChanges(batch: Buffer): Generator<BatchedChange, void, void> {
  for (let at = 0; at < batch.length;) {
    if (at + removeHeaderSizeBytes > batch.length) throw malformedFrame();
    const size = batch.readUInt32LE(at);
    const isPut = batch[at + 8] === putCode;
    const headerSize = isPut ? putHeaderSizeBytes : removeHeaderSizeBytes;
    if (!isPut && batch[at + 8] !== removeCode) throw malformedFrame();
    if (size < headerSize || at + size > batch.length) throw malformedFrame();
    const id = batch.readUInt32LE(at + 4);
    const version = batch.readIntLE(at + 12, 6);
    const nameStart = at + headerSize;
    const nameEnd = nameStart + batch.readUInt16LE(at + 10);
    if (nameEnd > at + size) throw malformedFrame();
    const name = batch.toString('utf8', nameStart, nameEnd) as FileName;
    yield isPut
      ? { kind: 'put', id, change: decodePut(batch, at, { name, version, nameEnd, end: at + size }) }
      : { kind: 'remove', id, change: { name, version } };
    at += size;
  }
}

function decodePut(
  batch: Buffer,
  at: number,
  { name, version, nameEnd, end }: { name: FileName; version: number; nameEnd: number; end: number },
): PutChange {
  const flags = batch[at + 9] ?? 0;
  const stagedEnd = nameEnd + batch.readUInt16LE(at + 36);
  const kind = contentKinds[(flags >> contentShift) & contentMask];
  if (kind === undefined || stagedEnd > end || (kind !== 'inline' && stagedEnd !== end))
    throw malformedFrame();
  const content: PutContent =
    kind === 'inline'
      ? { kind, bytes: batch.subarray(nameEnd, end) }
      : kind === 'staged'
        ? { kind, stagedId: batch.toString('utf8', nameEnd, end) }
        : { kind };
  return {
    name,
    version,
    digest: digestFromBytes(batch, at + 38),
    logicalSize: batch.readUIntLE(at + 18, 6),
    storedSize: batch.readUIntLE(at + 24, 6),
    encoding: (flags & gzipFlag) === 0 ? 'identity' : 'gzip',
    content,
    ...((flags & offeredFlag) !== 0 && { offeredSize: batch.readUIntLE(at + 30, 6) }),
  };
}

/** The kind of an outcome in a batch; -1 if a batch cannot carry it. */
function outcomeCode(outcome: PutOutcome | RemoveOutcome): number {
  if (outcome.kind !== 'stored') return outcomeKinds.findIndex((kind) => kind === outcome.kind);
  // The process that put the content must check that the object exists.
  if (outcome.object !== undefined) return -1;
  return outcomeKinds.indexOf(outcome.deduplicated ? 'deduplicated' : 'stored');
}

/** Whether a batch can carry an outcome. */
export function outcomeFitsBatch(outcome: PutOutcome | RemoveOutcome): boolean {
  return outcomeCode(outcome) !== -1;
}

/** The frame of a batch of outcomes, each of which fits. */
export function encodeOutcomes(outcomes: readonly BatchedOutcome[]): Buffer {
  const frame = newFrame(outcomes.length * outcomeSizeBytes);
  let at = prefixSizeBytes;
  for (const { id, outcome } of outcomes) {
    frame.writeUInt32LE(id, at);
    frame[at + 4] = outcomeCode(outcome);
    frame.writeIntLE('version' in outcome ? outcome.version : 0, at + 5, 6);
    at += outcomeSizeBytes;
  }
  return frame;
}

/** @throws FiletrackerError `protocol`. */
export function* decodeOutcomes(batch: Buffer): Generator<BatchedOutcome, void, void> {
  if (batch.length % outcomeSizeBytes !== 0) throw malformedFrame();
  for (let at = 0; at < batch.length; at += outcomeSizeBytes) {
    const kind = outcomeKinds[batch[at + 4] ?? outcomeKinds.length];
    const version = batch.readIntLE(at + 5, 6);
    yield { id: batch.readUInt32LE(at), outcome: outcomeOf(kind, version) };
  }
}

function outcomeOf(
  kind: (typeof outcomeKinds)[number] | undefined,
  version: number,
): PutOutcome | RemoveOutcome {
  switch (kind) {
    case 'stored':
      return { kind, version, deduplicated: false };
    case 'deduplicated':
      return { kind: 'stored', version, deduplicated: true };
    case 'removed':
    case 'superseded':
      return { kind, version };
    case 'absent':
    case 'precondition-failed':
    case 'content-missing':
      return { kind };
    case undefined:
      throw malformedFrame();
  }
}
