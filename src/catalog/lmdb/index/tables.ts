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

type BinaryDatabase = Database<Buffer, Buffer>;

/** Address space reserved for the map; a sparse figure, no memory and no disk. LMDB grows it when it is used up. */
const mapSizeBytes = 64 * 1024 ** 3;

const binary = { encoding: 'binary', keyEncoding: 'binary' } as const;

/**
 * The tables of the index in their LMDB file, and the look-ups in them.
 *
 * LMDB is opened without syncing: its file follows the journal, which alone is durable. It survives the death
 * of the process, as what was written is in the system's page cache; after a power loss it is not trusted.
 */
export class IndexTables {
  readonly root: RootDatabase<Buffer, Buffer>;
  readonly entries: BinaryDatabase;
  readonly blobs: BinaryDatabase;
  readonly unreferenced: BinaryDatabase;
  readonly segments: BinaryDatabase;
  readonly removals: BinaryDatabase;
  readonly state: BinaryDatabase;

  protected constructor(root: RootDatabase<Buffer, Buffer>) {
    this.root = root;
    this.entries = root.openDB({ name: 'entries', ...binary });
    this.blobs = root.openDB({ name: 'blobs', ...binary });
    this.unreferenced = root.openDB({ name: 'unreferenced', ...binary });
    this.segments = root.openDB({ name: 'segments', ...binary });
    this.removals = root.openDB({ name: 'removals', ...binary });
    this.state = root.openDB({ name: 'state', ...binary });
  }

  /**
   * Reads a row or a key. What is no row of ours is damage of the index.
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

  /** Called for each damaged row that is met. */
  noteDamage(_error: DamagedIndexError): void {
    // A reader of an index that it does not serve reports the error alone.
  }

  /** What any process has applied last. */
  readTotals(): IndexTotals {
    return this.decode(decodeTotals, this.state.get(totalsKey));
  }

  entry(name: FileName): EntryRow | undefined {
    const bytes = this.entries.getBinaryFast(Buffer.from(name));
    return bytes && this.decode(decodeEntryRow, bytes);
  }

  /** The removal of a name that is remembered. */
  removal(name: FileName): RemovalRow | undefined {
    const bytes = this.removals.getBinaryFast(Buffer.from(name));
    return bytes && this.decode(decodeRemovalRow, bytes);
  }

  /** What stands under a name. */
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

  /** The first name below a directory ("/a/") in byte order. */
  firstBelow(directory: string): FileName | undefined {
    const bounds = boundsOf(directory);
    for (const key of this.entries.getKeys({ ...bounds, limit: 1 })) return this.decode(decodeNameKey, key);
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

/** `readOnly` changes nothing, and fails where there is no file; else one is made. */
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

/** LMDB does not name a file that the system keeps from it, or ends the process over it. */
function checkPermissions(folder: string, { readOnly = false }: { readOnly?: boolean }): void {
  const mode = constants.R_OK | (readOnly ? 0 : constants.W_OK);
  const checks = [
    () => accessSync(folder, mode),
    // This asks for root who works with the rights of another user, too; closed, it would free LMDB's locks on the other file.
    () => closeSync(openSync(join(folder, indexDataFileName), readOnly ? 'r' : 'r+')),
    () => accessSync(join(folder, indexLockFileName), constants.R_OK | constants.W_OK),
  ];
  for (const check of checks) {
    try {
      check();
    } catch (error) {
      const errno = errnoOf(error);
      // Who only reads needs no lock file where nobody can write.
      if (errno === 'ENOENT' || (readOnly && errno === 'EROFS')) continue;
      throw fromSystemError(error, 'open the index of the catalog');
    }
  }
}

/** Keys of all names below a directory, after a name if one is given: no byte of UTF-8 is 0xff, and no name holds a NUL. */
export function boundsOf(directory: string, after?: FileName): { start: Buffer; end: Buffer } {
  const prefix = Buffer.from(directory);
  const next = after === undefined ? prefix : Buffer.concat([Buffer.from(after), Buffer.alloc(1)]);
  const start = Buffer.compare(next, prefix) > 0 ? next : prefix;
  return { start, end: Buffer.concat([prefix, Buffer.from([0xff])]) };
}
