import type { Clock } from '../../core/clock.ts';
import { digestFromBytes, digestToBytes, type Digest } from '../../core/digest.ts';
import type { FileName } from '../../core/file-name.ts';
import { inlineSizeMaxBytes } from '../../core/limits.ts';
import type {
  BlobRecord,
  CatalogReader,
  CatalogStats,
  Entry,
  ListOptions,
  LocatedEntry,
} from '../catalog.ts';
import type { Connections } from './connections.ts';
import { boundsOf, listRows } from './listing.ts';
import {
  blobRecordOf,
  checkedBytes,
  entryOf,
  locatedEntryOf,
  type BlobRow,
  type EntryRow,
  type LocatedRow,
  type NameRow,
} from './rows.ts';
import { statementsFor, type Statements } from './statements.ts';

/** Reads the catalog in PostgreSQL: each look-up and each page of a list is one statement, and so one snapshot. */
export class PostgresReader implements CatalogReader {
  readonly capabilities = { inlineSizeMaxBytes } as const;
  protected readonly connections: Connections;
  protected readonly statements: Statements;
  /** In tests, the time instead of the database's. */
  readonly #clock: Clock | undefined;

  protected constructor(connections: Connections, clock: Clock | undefined) {
    this.connections = connections;
    this.statements = statementsFor(connections.schema);
    this.#clock = clock;
  }

  async find(name: FileName): Promise<LocatedEntry | undefined> {
    const [row] = await this.connections.run<LocatedRow>(this.statements.find, [name]);
    return row && locatedEntryOf(row);
  }

  async findBlob(digest: Digest): Promise<BlobRecord | undefined> {
    const [row] = await this.connections.run<BlobRow>(this.statements.findBlob, [digestToBytes(digest)]);
    return row && this.recordOf(row);
  }

  async kindOfDirectory(directory: string): Promise<'directory' | 'file' | 'absent'> {
    const values = [directory.slice(0, -1), ...boundsOf(directory)];
    const [row] = await this.connections.run<{ kind: 'directory' | 'file' | 'absent' }>(
      this.statements.kindOfDirectory,
      values,
    );
    return row?.kind ?? 'absent';
  }

  async *listNames(directory: string, options: ListOptions = {}): AsyncIterable<readonly FileName[]> {
    const { listNames } = this.statements;
    for await (const rows of this.#list<NameRow>('list_names', listNames, directory, options)) {
      yield rows.map((row) => row.name);
    }
  }

  async *listEntries(directory: string, options: ListOptions = {}): AsyncIterable<readonly Entry[]> {
    const { listEntries } = this.statements;
    for await (const rows of this.#list<EntryRow>('list_entries', listEntries, directory, options)) {
      yield rows.map(entryOf);
    }
  }

  #list<Row extends NameRow>(
    name: string,
    text: (limit: number) => string,
    directory: string,
    options: ListOptions,
  ): AsyncIterable<readonly Row[]> {
    const { upTo } = options;
    const [after, before] = boundsOf(directory, options.after);
    const isShown = upTo === undefined ? undefined : (row: Row) => row.version <= upTo;
    const list = { name, text, values: [before], keyOf: (row: Row) => row.name, isShown };
    return listRows<Row>(this.connections, list, after, options);
  }

  async *listBlobs(
    options: { after?: Digest; signal?: AbortSignal } = {},
  ): AsyncIterable<readonly BlobRecord[]> {
    const after = options.after === undefined ? Buffer.alloc(0) : digestToBytes(options.after);
    const text = this.statements.listBlobs;
    const list = { name: 'list_blobs', text, values: [], keyOf: (row: BlobRow) => row.digest };
    for await (const rows of listRows<BlobRow>(this.connections, list, after, options)) {
      yield rows.map((row) => this.recordOf(row));
    }
  }

  async listUnreferenced(beforeMs: number, limit: number): Promise<readonly Digest[]> {
    const values = [Math.floor(beforeMs), limit];
    const rows = await this.connections.run<{ digest: Buffer }>(this.statements.listUnreferenced, values);
    return rows.map((row) => digestFromBytes(row.digest));
  }

  async stats(): Promise<CatalogStats> {
    const [row] = await this.connections.run<Record<string, number>>(this.statements.stats, []);
    const number = (column: string): number => row?.[column] ?? 0;
    return {
      entries: number('entries'),
      blobs: number('blobs'),
      logicalBytes: number('logical_bytes'),
      uniqueLogicalBytes: undefined,
      storedBytes: number('stored_bytes'),
      unreferencedBlobs: number('unreferenced_blobs'),
      journalBytes: number('journal_bytes'),
      journalLiveBytes: number('journal_bytes'),
    };
  }

  async timeMs(): Promise<number> {
    const [row] = await this.connections.run<{ now_ms: number }>(this.statements.now, [this.timeGiven()]);
    if (row === undefined) throw new TypeError('The query for the time returned no row');
    return row.now_ms;
  }

  /** The time that statements take; null for that of the database. */
  protected timeGiven(): number | null {
    return this.#clock?.nowMs() ?? null;
  }

  protected recordOf(row: BlobRow): BlobRecord {
    return blobRecordOf(row, async () => {
      const values = [row.digest];
      const [found] = await this.connections.run<{ bytes: Buffer | null }>(this.statements.readBlob, values);
      return checkedBytes(found?.bytes, row.stored_size);
    });
  }
}
