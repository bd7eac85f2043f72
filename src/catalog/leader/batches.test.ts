import { describe, expect, it } from 'vitest';
import { digestOf } from '../../core/digest.ts';
import { parseFileName } from '../../core/file-name.ts';
import { maxVersion, minVersion } from '../../core/file-version.ts';
import type { PutChange, PutOutcome, RemoveOutcome } from '../catalog.ts';
import {
  batchedSizeBytes,
  decodeChanges,
  decodeOutcomes,
  encodeChanges,
  encodeOutcomes,
  fitsBatch,
  outcomeFitsBatch,
  type BatchedChange,
} from './batches.ts';
import { FrameReader, prefixSizeBytes, type Frame } from './frames.ts';

function put(path: string, more: Partial<PutChange> = {}): PutChange {
  const bytes = Buffer.from(path);
  return {
    name: parseFileName(path),
    version: 1_700_000_000,
    digest: digestOf(bytes),
    logicalSize: bytes.length,
    storedSize: bytes.length,
    encoding: 'identity',
    content: { kind: 'inline', bytes },
    ...more,
  };
}

const changes: readonly BatchedChange[] = [
  { kind: 'put', id: 0, change: put('/plain') },
  { kind: 'put', id: 1, change: put('/ä/€', { encoding: 'gzip', version: minVersion }) },
  { kind: 'put', id: 2, change: put('/empty', { content: { kind: 'inline', bytes: Buffer.alloc(0) } }) },
  { kind: 'remove', id: 3, change: { name: parseFileName('/ä/removed'), version: maxVersion } },
  {
    kind: 'put',
    id: 2 ** 32 - 1,
    change: put('/staged', {
      content: { kind: 'staged', stagedId: 'upload-1' },
      logicalSize: 2 ** 40,
      storedSize: 2 ** 40 + 1,
      offeredSize: 2 ** 40 + 2,
    }),
  },
  { kind: 'put', id: 5, change: put('/known', { content: { kind: 'stored' }, offeredSize: 0 }) },
];

const outcomes: readonly (PutOutcome | RemoveOutcome)[] = [
  { kind: 'stored', version: minVersion, deduplicated: false },
  { kind: 'stored', version: maxVersion, deduplicated: true },
  { kind: 'removed', version: 7 },
  { kind: 'superseded', version: -7 },
  { kind: 'absent' },
  { kind: 'precondition-failed' },
  { kind: 'content-missing' },
];

function frameOf(batch: readonly BatchedChange[]): Buffer {
  return encodeChanges(
    batch,
    batch.reduce((sum, change) => sum + batchedSizeBytes(change), 0),
  );
}

describe('batches of changes', () => {
  it('decode to the changes that were encoded', () => {
    expect([...decodeChanges(frameOf(changes).subarray(prefixSizeBytes))]).toEqual(changes);
  });

  it('do not carry changes with a condition, or that repeat an earlier request', () => {
    const name = parseFileName('/a');
    expect(fitsBatch(put('/a'))).toBe(true);
    expect(fitsBatch({ name, version: 1 })).toBe(true);
    expect(fitsBatch(put('/a', { precondition: { kind: 'absent' } }))).toBe(false);
    expect(fitsBatch({ name, version: 1, precondition: { kind: 'absent' } })).toBe(false);
    expect(fitsBatch(put('/a', { firstSentMs: 0 }))).toBe(false);
    expect(fitsBatch(put('/a', { stoodBefore: { kind: 'nothing' } }))).toBe(false);
    expect(fitsBatch({ name, version: 1, stoodBefore: { kind: 'nothing' } })).toBe(false);
  });

  it('are refused if they are cut short or a field contradicts the length', () => {
    for (const change of changes) {
      const whole = frameOf([change]).subarray(prefixSizeBytes);
      for (let size = 1; size < whole.length; size += 1) {
        expect(() => [...decodeChanges(whole.subarray(0, size))]).toThrow('it is malformed');
      }
    }
    const wrong = (at: number, value: number): Buffer => {
      const batch = Buffer.from(frameOf(changes.slice(0, 1)).subarray(prefixSizeBytes));
      batch[at] = value;
      return batch;
    };
    for (const batch of [wrong(0, 0), wrong(8, 9), wrong(9, 6), wrong(11, 255), wrong(37, 255)]) {
      expect(() => [...decodeChanges(batch)]).toThrow('it is malformed');
    }
  });
});

describe('batches of outcomes', () => {
  it('decode to the outcomes that were encoded', () => {
    const batched = outcomes.map((outcome, id) => ({ id, outcome }));
    expect([...decodeOutcomes(encodeOutcomes(batched).subarray(prefixSizeBytes))]).toEqual(batched);
  });

  it('do not carry outcomes with more than a version', () => {
    const object = { key: 'key', storedSize: 1 };
    for (const outcome of outcomes) expect(outcomeFitsBatch(outcome)).toBe(true);
    expect(outcomeFitsBatch({ kind: 'stored', version: 1, deduplicated: true, object })).toBe(false);
    expect(outcomeFitsBatch({ kind: 'name-conflict', other: parseFileName('/a') })).toBe(false);
    expect(outcomeFitsBatch({ kind: 'limit-reached', limit: '1 file' })).toBe(false);
  });

  it('are refused if they are cut short or have an unknown outcome', () => {
    const batch = Buffer.from(
      encodeOutcomes([{ id: 1, outcome: { kind: 'absent' } }]).subarray(prefixSizeBytes),
    );
    expect(() => [...decodeOutcomes(batch.subarray(1))]).toThrow('it is malformed');
    batch[4] = 200;
    expect(() => [...decodeOutcomes(batch)]).toThrow('it is malformed');
  });
});

describe('frames', () => {
  function read(pieces: readonly Buffer[]): Frame[] {
    const frames: Frame[] = [];
    const reader = new FrameReader((frame) => frames.push({ ...frame, bytes: Buffer.from(frame.bytes) }));
    for (const piece of pieces) reader.push(piece);
    return frames;
  }

  it('are the same wherever the connection cuts them', () => {
    const text = Buffer.from('{"id":7}');
    const json = Buffer.concat([Buffer.from([15, 0, 0, 0, 8, 0, 0, 0]), text, Buffer.from('abc')]);
    const bytes = Buffer.concat([json, frameOf(changes.slice(0, 2)), json]);
    const whole = read([bytes]);
    expect(whole.map(({ message }) => message)).toEqual([{ id: 7 }, undefined, { id: 7 }]);
    expect(whole[0]?.bytes.toString()).toBe('abc');
    for (let at = 0; at <= bytes.length; at += 1) {
      expect(read([bytes.subarray(0, at), bytes.subarray(at)])).toEqual(whole);
    }
    expect(read(Array.from(bytes, (_, at) => bytes.subarray(at, at + 1)))).toEqual(whole);
  });

  it('are refused if they are longer than any', () => {
    expect(() => read([Buffer.from([0, 0, 0, 127, 0, 0, 0, 0])])).toThrow('it is malformed');
  });
});
