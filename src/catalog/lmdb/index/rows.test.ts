import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../core/digest.ts';
import type { FileName } from '../../../core/file-name.ts';
import { DamagedIndexError } from './failures.ts';
import {
  decodeBlobRow,
  decodeDigestKey,
  decodeEntryRow,
  decodeNameKey,
  decodeRemovalRow,
  decodeSegmentKey,
  decodeSegmentRow,
  decodeTotals,
  decodeUnreferencedKey,
  encodeBlobRow,
  encodeEntryRow,
  encodeRemovalRow,
  encodeSegmentRow,
  encodeTotals,
  segmentKey,
  unreferencedKey,
  type BlobRow,
} from './rows.ts';

const digest = digestOf(Buffer.from('content'));
const blob = (more: Partial<BlobRow> = {}): BlobRow => ({
  encoding: 'gzip',
  logicalSize: 2 ** 40,
  storedSize: 1000,
  references: 3,
  unreferencedSinceMs: 0,
  damaged: false,
  segment: 7,
  offset: 4096,
  place: { kind: 'object', key: `${digest}.gz` },
  counted: true,
  alone: true,
  mark: undefined,
  ...more,
});
const totals = {
  segment: 1,
  offset: 2,
  entries: 3,
  blobs: 4,
  logicalBytes: 5,
  storedBytes: 6,
  unreferencedBlobs: 7,
  uniqueLogicalBytes: 8,
};

interface RowForm {
  readonly kind: string;
  readonly bytes: Buffer;
  readonly decode: (bytes: Buffer) => unknown;
  readonly row: unknown;
}
const form = <Row>(kind: string, bytes: Buffer, decode: (bytes: Buffer) => Row, row: Row): RowForm => ({
  kind,
  bytes,
  decode,
  row,
});
const entry = { version: -5, segment: 2, offset: 3, digest };
const removal = { version: -5, timeMs: 1e12, segment: 2, offset: 3, origin: 1 };
const inline = blob({ place: { kind: 'journal', bytesOffset: 4200, crc: 9 } });
const lost = blob({
  place: { kind: 'lost' },
  damaged: true,
  segment: 0,
  offset: 0,
  counted: false,
  alone: false,
});
const mark = { segment: 8, offset: 152 };
const uncounted = blob({ counted: false, alone: false });
const segment = { sizeBytes: 300, liveBytes: 200 };
const forms: RowForm[] = [
  form('entry', encodeEntryRow(entry), decodeEntryRow, entry),
  form('blob in the blob store', encodeBlobRow(blob()), decodeBlobRow, blob()),
  form('blob in the journal', encodeBlobRow(inline), decodeBlobRow, inline),
  form('marked blob in the blob store', encodeBlobRow(blob({ mark })), decodeBlobRow, blob({ mark })),
  form('marked blob in the journal', encodeBlobRow({ ...inline, mark }), decodeBlobRow, { ...inline, mark }),
  form('blob of release 3.0', encodeBlobRow(uncounted), decodeBlobRow, uncounted),
  form('lost blob', encodeBlobRow(lost), decodeBlobRow, lost),
  form('removal', encodeRemovalRow(removal), decodeRemovalRow, removal),
  form('segment', encodeSegmentRow(segment), decodeSegmentRow, segment),
  form('totals', encodeTotals(totals), decodeTotals, totals),
  form('digest key', Buffer.from(digest, 'hex'), decodeDigestKey, digest),
  form('name key', Buffer.from('/ä/b'), decodeNameKey, '/ä/b' as FileName),
  form('unreferenced key', unreferencedKey(1e12, digest), decodeUnreferencedKey, { sinceMs: 1e12, digest }),
  form('segment key', segmentKey(70_000), decodeSegmentKey, 70_000),
];

/** As lmdb returns a row: in a buffer that is longer than the row, with a `length` of its own. */
function inLongerBuffer(row: Buffer, rest: string): Buffer {
  const bytes = Buffer.concat([row, Buffer.alloc(4096, rest)]);
  Object.defineProperty(bytes, 'length', { value: row.length });
  return bytes;
}

describe('the rows of the index', () => {
  it.each(forms)('end at their own length in a longer buffer: $kind', ({ bytes, decode, row }) => {
    expect(decode(bytes)).toEqual(row);
    for (const rest of ['\0', 'x', '/']) expect(decode(inLongerBuffer(bytes, rest))).toEqual(row);
  });

  it.each(forms)('are damaged if they are cut short: $kind', ({ kind, bytes, decode }) => {
    const ends = [...bytes.keys()].filter((end) => !(kind === 'totals' && end === 56));
    // A key of the blob store, and a name, have no length of their own: a part of one is one.
    const hasKey = kind.endsWith('in the blob store') || kind === 'blob of release 3.0';
    const least = hasKey ? 41 : kind === 'name key' ? 1 : Infinity;
    for (const end of ends.filter((at) => at < least)) {
      expect(() => decode(bytes.subarray(0, end)), `cut at ${end}`).toThrow(DamagedIndexError);
    }
  });

  it.each(forms.filter(({ kind }) => kind !== 'name key'))(
    'are damaged if foreign memory follows them: $kind',
    ({ bytes, decode }) => {
      for (const rest of [Buffer.alloc(1), Buffer.alloc(300, 'x'), Buffer.alloc(100_000)]) {
        expect(() => decode(Buffer.concat([bytes, rest]))).toThrow(DamagedIndexError);
      }
    },
  );

  it('are damaged if they hold a value that is never written', () => {
    const changed = (bytes: Buffer, change: (copy: Buffer) => void): Buffer => {
      const copy = Buffer.from(bytes);
      change(copy);
      return copy;
    };
    const stored = encodeBlobRow(blob());
    const impossible: [decode: (bytes: Buffer) => unknown, bytes: Buffer][] = [
      [decodeBlobRow, changed(stored, (copy) => (copy[0] = 0x85))],
      [decodeBlobRow, changed(stored, (copy) => (copy[0] = 0x07))],
      [decodeBlobRow, changed(stored, (copy) => copy.writeUInt32LE(0, 24))],
      [decodeBlobRow, changed(stored, (copy) => (copy[50] = 0))],
      [decodeBlobRow, changed(stored, (copy) => (copy[50] = 0xe9))],
      [decodeBlobRow, changed(encodeBlobRow(inline), (copy) => copy.writeUInt32LE(4096, 32))],
      [decodeBlobRow, changed(encodeBlobRow(inline), (copy) => copy.writeUIntLE(2 ** 40, 7, 6))],
      [decodeBlobRow, changed(encodeBlobRow(blob({ mark })), (copy) => copy.writeUInt32LE(0, 32))],
      [decodeBlobRow, changed(encodeBlobRow(uncounted), (copy) => (copy[0] = 0x25))],
      [decodeBlobRow, changed(encodeBlobRow(lost), (copy) => (copy[0] = 0x18))],
      [decodeSegmentRow, changed(encodeSegmentRow(segment), (copy) => copy.writeDoubleLE(NaN, 0))],
      [decodeTotals, changed(encodeTotals(totals), (copy) => copy.writeDoubleLE(0.5, 16))],
      [decodeNameKey, Buffer.from('no slash')],
      [decodeNameKey, Buffer.alloc(0)],
    ];
    for (const [decode, bytes] of impossible) expect(() => decode(bytes)).toThrow(DamagedIndexError);
  });
});
