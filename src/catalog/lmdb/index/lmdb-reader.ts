import { setImmediate as immediate } from 'node:timers/promises';
import { systemClock, type Clock } from '../../../core/clock.ts';
import type { Digest } from '../../../core/digest.ts';
import type { FileName } from '../../../core/file-name.ts';
import { inlineSizeMaxBytes, listBatchNames } from '../../../core/limits.ts';
import type {
  BlobLocation,
  BlobRecord,
  CatalogCapabilities,
  CatalogReader,
  CatalogStats,
  Entry,
  ListOptions,
  LocatedEntry,
  NameStanding,
} from '../../catalog.ts';
import { SegmentReader } from '../../journal/segment-reader.ts';
import type { IndexDatabase } from './database.ts';
import type { EmbeddedFolders } from '../embedded-folders.ts';
import { boundsOf } from './tables.ts';
import { RememberedEntries } from './remembered-entries.ts';
import {
  decodeBlobRow,
  decodeDigestKey,
  decodeEntryRow,
  decodeNameKey,
  decodeSegmentRow,
  decodeUnreferencedKey,
  versionOfEntryRow,
  type BlobRow,
  type EntryRow,
} from './rows.ts';

/** Keys from one, and up to another that is left out; without them from the first and up to the last. */
interface Bounds {
  readonly start?: Buffer | undefined;
  readonly end?: Buffer | undefined;
}

interface Range extends Bounds {
  readonly limit: number;
}

/** What is shown of some rows, and the key at which the next ones begin; undefined at the end. */
interface Page<Item> {
  readonly items: readonly Item[];
  readonly next: Buffer | undefined;
}

/**
 * Reads the embedded catalog, in any process.
 *
 * Invariant: every look-up begins with the newest transaction of which anyone may have been told (`#refresh`),
 * and takes all its rows from that one: it runs without giving up the thread.
 */
export class LmdbReader implements CatalogReader {
  readonly capabilities: CatalogCapabilities = { inlineSizeMaxBytes };
  readonly #index: IndexDatabase;
  readonly #segments: SegmentReader;
  readonly #remembered = new RememberedEntries();
  readonly #clock: Clock;

  constructor(index: IndexDatabase, folders: EmbeddedFolders, clock = systemClock) {
    this.#index = index;
    this.#clock = clock;
    this.#segments = new SegmentReader(folders.journal);
  }

  // Not `async`: with 34,000 look-ups a second in one process each promise that is not made counts.
  find(name: FileName): Promise<LocatedEntry | undefined> {
    this.#refresh();
    const remembered = this.#remembered.get(name);
    if (remembered !== undefined) return remembered;
    const row = this.#index.entry(name);
    const blob = row && this.#index.blob(row.digest);
    if (row === undefined || blob === undefined) return Promise.resolve(undefined);
    const found = Promise.resolve({
      entry: entryOf(name, row, blob),
      location: this.#locationOf(blob),
      damaged: blob.damaged,
    });
    this.#remembered.remember(name, found);
    return found;
  }

  /** What stands under a name, or was removed from it. */
  standing(name: FileName): NameStanding {
    this.#refresh();
    return this.#index.standing(name);
  }

  async findBlob(digest: Digest): Promise<BlobRecord | undefined> {
    this.#refresh();
    const row = this.#index.blob(digest);
    return row && this.recordOf(digest, row);
  }

  async kindOfDirectory(directory: string): Promise<'directory' | 'file' | 'absent'> {
    this.#refresh();
    if (directory !== '/' && this.#index.entry(directory.slice(0, -1) as FileName)) return 'file';
    return this.#index.firstBelow(directory) === undefined ? 'absent' : 'directory';
  }

  listNames(directory: string, options: ListOptions = {}): AsyncGenerator<readonly FileName[], void, void> {
    const { upTo } = options;
    // With no cutoff the values are not even copied: 0.4 microseconds a name against 0.6.
    return this.#pages(boundsOf(directory, options.after), options, (range) =>
      upTo === undefined ? this.#namesIn(range) : this.#namesUpTo(upTo, range),
    );
  }

  listEntries(directory: string, options: ListOptions = {}): AsyncGenerator<readonly Entry[], void, void> {
    const { upTo = Infinity } = options;
    return this.#pages(boundsOf(directory, options.after), options, (range) => this.#entriesIn(range, upTo));
  }

  listBlobs(
    options: { after?: Digest; signal?: AbortSignal } = {},
  ): AsyncGenerator<readonly BlobRecord[], void, void> {
    const { after } = options;
    const start = after === undefined ? undefined : keyAfterDigest(after);
    return this.#pages({ start }, options, (range) => this.#blobsIn(range));
  }

  /**
   * The items of a range of a table, in pages. `read` takes at most `limit` rows and gives what is to be shown of them.
   *
   * Invariant: a page is read in one turn of the event loop, from one transaction, and nothing of LMDB is held from one
   * page to the next. A receiver that is slow, or never comes back, keeps no old page of the file from being used again
   * and takes none of the places for readers. The next page begins after the last row of the one before, so a row that
   * is there all the time is given exactly once.
   */
  async *#pages<Item>(
    { start, end }: Bounds,
    { limit = Infinity, upTo, signal }: Omit<ListOptions, 'after'>,
    read: (range: Range) => Page<Item>,
  ): AsyncGenerator<readonly Item[], void, void> {
    let left = limit;
    for (let from = start; left > 0;) {
      this.#refresh();
      // What a cutoff leaves out does not count: a page of it is not cut down to what is left.
      const rowsMax = upTo === undefined ? Math.min(left, listBatchNames) : listBatchNames;
      const { items, next } = read({ start: from, end, limit: rowsMax });
      const shown = items.length > left ? items.slice(0, left) : items;
      left -= shown.length;
      if (shown.length > 0) yield shown;
      // Rows that are passed by leave others their turn, too.
      else if (next !== undefined) await immediate();
      signal?.throwIfAborted();
      if (next === undefined) return;
      from = next;
    }
  }

  #namesIn(range: Range): Page<FileName> {
    const items: FileName[] = [];
    for (const key of this.#index.entries.getKeys(given(range))) {
      items.push(this.#index.decode(decodeNameKey, key));
    }
    return pageOf(items, items.length, range, items.at(-1));
  }

  #namesUpTo(upTo: number, range: Range): Page<FileName> {
    const items: FileName[] = [];
    let rows = 0;
    let last: FileName | undefined;
    for (const { key, value } of this.#index.entries.getRange(given(range))) {
      rows += 1;
      const isShown = this.#index.decode(versionOfEntryRow, value) <= upTo;
      if (!isShown && rows < range.limit) continue;
      last = this.#index.decode(decodeNameKey, key);
      if (isShown) items.push(last);
    }
    return pageOf(items, rows, range, last);
  }

  #entriesIn(range: Range, upTo: number): Page<Entry> {
    const items: Entry[] = [];
    let rows = 0;
    let last: FileName | undefined;
    for (const { key, value } of this.#index.entries.getRange(given(range))) {
      rows += 1;
      last = this.#index.decode(decodeNameKey, key);
      const row = this.#index.decode(decodeEntryRow, value);
      const blob = row.version > upTo ? undefined : this.#index.blob(row.digest);
      if (blob !== undefined) items.push(entryOf(last, row, blob));
    }
    return pageOf(items, rows, range, last);
  }

  #blobsIn(range: Range): Page<BlobRecord> {
    const items: BlobRecord[] = [];
    for (const { key, value } of this.#index.blobs.getRange(given(range))) {
      const digest = this.#index.decode(decodeDigestKey, key);
      items.push(this.recordOf(digest, this.#index.decode(decodeBlobRow, value)));
    }
    const last = items.at(-1)?.digest;
    const next = items.length < range.limit || last === undefined ? undefined : keyAfterDigest(last);
    return { items, next };
  }

  async listUnreferenced(beforeMs: number, limit: number): Promise<readonly Digest[]> {
    this.#refresh();
    const digests: Digest[] = [];
    for (const key of this.#index.unreferenced.getKeys({ limit })) {
      const { sinceMs, digest } = this.#index.decode(decodeUnreferencedKey, key);
      if (sinceMs >= beforeMs) break;
      digests.push(digest);
    }
    return digests;
  }

  async stats(): Promise<CatalogStats> {
    this.#refresh();
    const totals = this.#index.readTotals();
    let journalBytes = 0;
    let journalLiveBytes = 0;
    for (const { value } of this.#index.segments.getRange({})) {
      const row = this.#index.decode(decodeSegmentRow, value);
      journalBytes += row.sizeBytes;
      journalLiveBytes += row.liveBytes;
    }
    const { segment: _segment, offset: _offset, ...sums } = totals;
    return { ...sums, journalBytes, journalLiveBytes };
  }

  async timeMs(): Promise<number> {
    return this.#clock.nowMs();
  }

  recordOf(digest: Digest, row: BlobRow): BlobRecord {
    const { encoding, logicalSize, storedSize, references, damaged } = row;
    const location = this.#locationOf(row);
    return { digest, encoding, logicalSize, storedSize, references, damaged, location };
  }

  async close(): Promise<void> {
    this.#segments.close();
  }

  /**
   * Sees to it that what is read next is what was committed last. Where nothing has been, LMDB's transaction of
   * this turn will do: a new one takes a timer of Node's and 0.7 microseconds.
   */
  #refresh(): void {
    if (!this.#remembered.isCurrent(this.#index.commitCount)) this.#index.root.resetReadTxn();
  }

  #locationOf(row: BlobRow): BlobLocation {
    const { place, segment, storedSize } = row;
    switch (place.kind) {
      case 'object':
        return place;
      case 'journal': {
        const { bytesOffset, crc } = place;
        return { kind: 'inline', read: () => this.#segments.read(segment, bytesOffset, storedSize, crc) };
      }
      case 'lost':
        return { kind: 'inline', read: async () => undefined };
    }
  }
}

function entryOf(name: FileName, row: EntryRow, blob: BlobRow): Entry {
  return {
    name,
    version: row.version,
    digest: row.digest,
    logicalSize: blob.logicalSize,
    storedSize: blob.storedSize,
    encoding: blob.encoding,
  };
}

/** A range as LMDB takes it, which tells an end that is undefined from one that is not given. */
function given({ start, end, limit }: Range): { start?: Buffer; end?: Buffer; limit: number } {
  return { ...(start && { start }), ...(end && { end }), limit };
}

function pageOf<Item>(
  items: readonly Item[],
  rows: number,
  range: Range,
  last: FileName | undefined,
): Page<Item> {
  const isLast = rows < range.limit || last === undefined;
  return { items, next: isLast ? undefined : Buffer.from(`${last}\0`) };
}

function keyAfterDigest(digest: Digest): Buffer {
  return Buffer.from(`${digest}00`, 'hex');
}
