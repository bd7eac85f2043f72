import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { encodeRecord, recordSizeBytes, type JournalRecord } from '../../src/catalog/journal/record.ts';
import { segmentPath } from '../../src/catalog/journal/segment-header.ts';
import { digestOf } from '../../src/core/digest.ts';
import { parseFileName } from '../../src/core/file-name.ts';

const headerSizeBytes = 64;

/** A record as release 3.0 wrote it into a segment. */
function oldRecord(record: JournalRecord, segment: number, groupStart: number): Buffer {
  const bytes = Buffer.alloc(recordSizeBytes(record));
  encodeRecord(record, bytes, 0, { segment, checksum: segment, mark: 0 }, groupStart);
  return bytes;
}

/** A segment as release 3.0 wrote it, each record a group of its own. */
function oldSegment(records: readonly JournalRecord[], number = 1, previousEnd = 0): Buffer {
  const header = Buffer.alloc(headerSizeBytes);
  header.write('FTJRNL01', 0, 'latin1');
  header.writeUInt32LE(number, 12);
  header.writeUIntLE(1_700_000_000_000, 16, 6);
  header.writeUIntLE(previousEnd, 22, 6);
  header.writeUInt32LE(crc32(header.subarray(12)), 8);
  const parts: Buffer[] = [header];
  let at = header.length;
  for (const record of records) {
    parts.push(oldRecord(record, number, at));
    at += recordSizeBytes(record);
  }
  return Buffer.concat(parts);
}

/** Where the records of such a segment begin. */
export function offsetsOf(records: readonly JournalRecord[]): readonly number[] {
  let at = headerSizeBytes;
  return records.map((record) => (at += recordSizeBytes(record)) - recordSizeBytes(record));
}

/** Makes the store of release 3.0 in a folder, of one segment. */
export async function makeOldStore(folder: string, records: readonly JournalRecord[]): Promise<void> {
  const journal = join(folder, 'journal');
  await rm(folder, { recursive: true, force: true });
  await mkdir(journal, { recursive: true });
  await writeFile(segmentPath(journal, 1), oldSegment(records));
}

/** The record of a file whose content lies in it. */
export function putRecord(path: string, version: number, bytes: Buffer): JournalRecord {
  return {
    type: 'put',
    timeMs: 1_700_000_000_000,
    name: parseFileName(path),
    version,
    digest: digestOf(bytes),
    encoding: 'identity',
    logicalSize: bytes.length,
    storedSize: bytes.length,
    content: { kind: 'inline', bytes },
    damaged: false,
  };
}

/** What somebody stores who wants recovery to remove another's file: records that segments of release 3.0 could hold. */
export function forgedRemovals(path: string, segment: number): Buffer {
  const removal: JournalRecord = {
    type: 'remove',
    timeMs: 1_700_000_000_000,
    name: parseFileName(path),
    version: 1_700_000_000,
    origin: segment,
  };
  // A record begins at a multiple of 8: the one byte in between puts some of them there, whatever stands before the content.
  const record = oldRecord(removal, segment, 60 * 1024 * 1024);
  return Buffer.concat(Array.from({ length: 8 }, () => [record, Buffer.alloc(1)]).flat());
}
