import { accessSync, closeSync, constants, openSync } from 'node:fs';
import { join } from 'node:path';
import { open, type Database, type RootDatabase } from 'lmdb';
import { digestToBytes, type Digest } from '../../../core/digest.ts';
import { errnoOf, fromSystemError } from '../../../core/errors.ts';
import type { FileName } from '../../../core/file-name.ts';
import type { NameStanding } from '../../catalog.ts';
import { DamagedIndexError } from './failures.ts';
import { indexDataFileName, indexLockFileName } from './state.ts';
import {
  decodeBlobRow,
  decodeEntryRow,
  decodeNameKey,
  decodeRemovalRow,
  decodeSegmentKey,
  decodeSegmentRow,
  decodeTotals,
  segmentKey,
  totalsKey,
  type BlobRow,
  type EntryRow,
  type IndexTotals,
  type RemovalRow,
  type SegmentRow,
} from './rows.ts';

/** A table of LMDB whose keys and values are bytes. */
export type BinaryTable = Database<Buffer, Buffer>;

/** Address space reserved for the map: no memory and no disk. LMDB grows it when it is used up. */
const mapSizeBytes = 64 * 1024 ** 3;

const binary = { encoding: 'binary', keyEncoding: 'binary' } as const;

/**
 * The tables of the index in their LMDB file, and the look-ups in them.
 *
 * LMDB is opened without syncing: its file follows the journal, which alone is durable. It survives the death of the
 * process, as its writes are in the system's page cache; after a power loss it is not trusted.
 */
export class IndexTables {
  readonly root: RootDatabase<Buffer, Buffer>;
  readonly entries: BinaryTable;
  readonly blobs: BinaryTable;
  readonly unreferenced: BinaryTable;
  readonly segments: BinaryTable;
  readonly removals: BinaryTable;
  readonly state: BinaryTable;
  /** The options of `#firstFrom`, which lmdb reads at each iteration. */
  readonly #firstBounds = { start: Buffer.alloc(0), limit: 1 };
  readonly #firstFrom: Iterable<Buffer>;

  protected constructor(root: RootDatabase<Buffer, Buffer>) {
    this.root = root;
    this.entries = root.openDB({ name: 'entries', ...binary });
    this.blobs = root.openDB({ name: 'blobs', ...binary });
    this.unreferenced = root.openDB({ name: 'unreferenced', ...binary });
    this.segments = root.openDB({ name: 'segments', ...binary });
    this.removals = root.openDB({ name: 'removals', ...binary });
    this.state = root.openDB({ name: 'state', ...binary });
    this.#firstFrom = this.entries.getKeys(this.#firstBounds);
  }

  /**
   * Decodes a row or a key. Bytes that were never written are damage of the index.
   * @throws DamagedIndexError after `noteDamage`.
   */
  decode<Row, Bytes extends Buffer | undefined>(decoder: (bytes: Bytes) => Row, bytes: Bytes): Row {
    try {
      return decoder(bytes);
    } catch (error) {
      if (error instanceof DamagedIndexError) this.noteDamage(error);
      throw error;
    }
  }

  /** Called for each damaged row that is read; does nothing unless the index is shared. */
  noteDamage(_error: DamagedIndexError): void {}

  /** The totals after the last change by any process. */
  readTotals(): IndexTotals {
    return this.decode(decodeTotals, this.state.get(totalsKey));
  }

  entry(name: FileName): EntryRow | undefined {
    const bytes = this.entries.getBinaryFast(Buffer.from(name));
    return bytes && this.decode(decodeEntryRow, bytes);
  }

  removal(name: FileName): RemovalRow | undefined {
    const bytes = this.removals.getBinaryFast(Buffer.from(name));
    return bytes && this.decode(decodeRemovalRow, bytes);
  }

  /** The entry under a name, or its removal. */
  standing(name: FileName): NameStanding {
    const entry = this.entry(name);
    if (entry !== undefined) return { kind: 'entry', version: entry.version, digest: entry.digest };
    const removal = this.removal(name);
    if (removal === undefined) return { kind: 'nothing' };
    return { kind: 'removed', version: removal.version, timeMs: removal.timeMs };
  }

  blob(digest: Digest): BlobRow | undefined {
    const bytes = this.blobs.getBinaryFast(digestToBytes(digest));
    return bytes && this.decode(decodeBlobRow, bytes);
  }

  /**
   * The first name below a directory ("/a/") in byte order. Every put of a new name asks for it, so the range is made once
   * and iterated again: making one takes 10 of 15 microseconds.
   */
  firstBelow(directory: string): FileName | undefined {
    const prefix = Buffer.from(directory);
    this.#firstBounds.start = prefix;
    for (const key of this.#firstFrom) {
      const isBelow = key.length >= prefix.length && prefix.compare(key, 0, prefix.length) === 0;
      return isBelow ? this.decode(decodeNameKey, key) : undefined;
    }
    return undefined;
  }

  segmentRow(number: number): SegmentRow | undefined {
    const bytes = this.segments.get(segmentKey(number));
    return bytes && this.decode(decodeSegmentRow, bytes);
  }

  /** All segments that records were applied from, ascending. */
  segmentRows(): (SegmentRow & { number: number })[] {
    return [...this.segments.getRange({})].map(({ key, value }) => ({
      number: this.decode(decodeSegmentKey, key),
      ...this.decode(decodeSegmentRow, value),
    }));
  }

  async close(): Promise<void> {
    await this.root.close();
  }
}

/** Opens the file of an index, or creates it; `readOnly` changes nothing, and fails if there is no file. */
export function openIndexFile(folder: string, options: { readOnly?: boolean }): RootDatabase<Buffer, Buffer> {
  checkPermissions(folder, options);
  return open<Buffer, Buffer>({
    path: folder,
    readOnly: options.readOnly ?? false,
    noSync: true,
    overlappingSync: false,
    ...binary,
    maxDbs: 8,
    maxReaders: 1024,
    mapSize: mapSizeBytes,
  });
}

/** Checks access first: LMDB reports no file name if the system denies access, or ends the process. */
function checkPermissions(folder: string, { readOnly = false }: { readOnly?: boolean }): void {
  const mode = constants.R_OK | (readOnly ? 0 : constants.W_OK);
  const checks = [
    () => accessSync(folder, mode),
    // `access` knows only the real user, so the data file is opened. (Closing the lock file would free LMDB's locks on it.)
    () => closeSync(openSync(join(folder, indexDataFileName), readOnly ? 'r' : 'r+')),
    () => accessSync(join(folder, indexLockFileName), constants.R_OK | constants.W_OK),
  ];
  for (const check of checks) {
    try {
      check();
    } catch (error) {
      const errno = errnoOf(error);
      // On a read-only file system a reader needs no lock file.
      if (errno === 'ENOENT' || (readOnly && errno === 'EROFS')) continue;
      throw fromSystemError(error, 'open the index of the catalog');
    }
  }
}

/** Keys of all names below a directory, after a name if one is passed. No byte of UTF-8 is 0xff; no name has a NUL. */
export function boundsOf(directory: string, after?: FileName): { start: Buffer; end: Buffer } {
  const prefix = Buffer.from(directory);
  const next = after === undefined ? prefix : Buffer.concat([Buffer.from(after), Buffer.alloc(1)]);
  const start = Buffer.compare(next, prefix) > 0 ? next : prefix;
  return { start, end: Buffer.concat([prefix, Buffer.from([0xff])]) };
}
