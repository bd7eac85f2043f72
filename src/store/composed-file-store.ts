import { randomBytes } from 'node:crypto';
import type { BlobStore } from '../blobs/blob-store.ts';
import type { Catalog, Entry } from '../catalog/catalog.ts';
import { refusalOfPut } from '../catalog/decisions.ts';
import { FiletrackerError } from '../core/errors.ts';
import { ancestorsOf, parseFileName, type FileName } from '../core/file-name.ts';
import { lookUpsMax } from '../core/limits.ts';
import type { ReportProblem } from '../core/report.ts';
import { checkAnnounced, sizeMismatch } from './body-verifier.ts';
import { damagedBlob, FileReader } from './file-reader.ts';
import type {
  FileStatus,
  FileStore,
  ForecastOptions,
  ListOptions,
  OpenFile,
  PutBody,
  PutForecast,
  PutIntent,
  PutOptions,
  PutResult,
  ReadOptions,
  RemoveResult,
  StoreStats,
} from './file-store.ts';
import { defaultStoreLimits, type StoreLimits } from './store-limits.ts';
import { Ingest, type SettledPut } from './ingest.ts';

export interface ComposedFileStoreOptions {
  readonly catalog: Catalog;
  readonly blobs: BlobStore;
  readonly reportProblem: ReportProblem;
  /** Called after a change that may have left a blob without a name. */
  readonly onRelease?: (() => void) | undefined;
  /** Bounds that differ from core/limits.ts. */
  readonly limits?: Partial<StoreLimits> | undefined;
}

/**
 * A file store composed of a catalog and a blob store, which the caller opens and closes.
 *
 * Invariant: what is visible is what the catalog says, and the catalog is told of a content only after all of
 * it was verified (invariant 2) and, where it is staged, made durable (invariant 1). The catalog then places
 * it in the same step that makes it visible (invariant 5). A reader takes entry and place of the bytes from
 * one look-up, and looks up again where the bytes are gone before they are open (invariant 3).
 */
export class ComposedFileStore implements FileStore {
  readonly #catalog: Catalog;
  readonly #blobs: BlobStore;
  readonly #limits: StoreLimits;
  readonly #ingest: Ingest;
  readonly #reader: FileReader;
  readonly #reportProblem: ReportProblem;
  readonly #onRelease: () => void;
  #running = 0;
  #closed = false;
  #closing: Promise<void> | undefined;
  #onIdle: (() => void) | undefined;

  constructor(options: ComposedFileStoreOptions) {
    const { catalog, blobs, reportProblem } = options;
    this.#catalog = catalog;
    this.#blobs = blobs;
    this.#reportProblem = reportProblem;
    this.#onRelease = options.onRelease ?? ((): void => undefined);
    this.#limits = { ...defaultStoreLimits, ...options.limits };
    this.#ingest = new Ingest({ catalog, blobs, reportProblem, limits: this.#limits });
    this.#reader = new FileReader(blobs, {
      cacheSizeBytes: this.#limits.readCacheSizeBytes,
      damageFound: (entry, error) => this.#damageFound(entry, error),
    });
  }

  async stat(name: FileName): Promise<FileStatus | undefined> {
    const found = await this.#catalog.find(name);
    return found?.damaged === true ? { ...found.entry, damaged: true } : found?.entry;
  }

  async open(name: FileName, options: ReadOptions): Promise<OpenFile | undefined> {
    for (let lookUps = 1; ; lookUps += 1) {
      const found = await this.#catalog.find(name);
      if (found === undefined) return undefined;
      if (found.damaged) {
        this.#reader.forget(found.entry);
        throw damagedBlob(found.entry, 'it is known to be damaged');
      }
      const file = await this.#reader.open(found, options);
      if (file !== undefined) return file;
      // Not marked as damaged: a disk that is not mounted looks like this, and comes back.
      if (lookUps === lookUpsMax) throw damagedBlob(found.entry, 'its bytes are not in the store');
    }
  }

  async directAddress(
    name: FileName,
    lifetimeSeconds: number,
  ): Promise<{ readonly entry: Entry; readonly url: string } | undefined> {
    const found = await this.#catalog.find(name);
    if (found === undefined || found.damaged || found.location.kind !== 'object') return undefined;
    const { entry, location } = found;
    const url = await this.#blobs.presign(location.key, lifetimeSeconds, entry.encoding);
    return url === undefined ? undefined : { entry, url };
  }

  async forecast(intent: PutIntent, options: ForecastOptions): Promise<PutForecast> {
    const forecast = await this.#forecast(intent, options);
    if (forecast.kind === 'body-needed') await this.#checkFull(intent.name, options.announcedSize ?? 0);
    return forecast;
  }

  /** The catalog decides in the end here too; what a prefix may hold is known to its one writer alone. */
  async #checkFull(name: FileName, announcedBytes: number): Promise<void> {
    const { storedBytesMax, entriesMax } = this.#limits;
    if (storedBytesMax === Number.POSITIVE_INFINITY && entriesMax === Number.POSITIVE_INFINITY) return;
    const { storedBytes, entries } = await this.#catalog.stats();
    if (storedBytes + announcedBytes > storedBytesMax) {
      throw quotaExceeded(name, `the store would take more than the ${storedBytesMax} bytes that it may`);
    }
    if (entries < entriesMax || (await this.#catalog.find(name)) !== undefined) return;
    throw quotaExceeded(name, `the store holds the ${entriesMax} files that it may`);
  }

  async #forecast(intent: PutIntent, options: ForecastOptions): Promise<PutForecast> {
    const { claims, name } = intent;
    checkAnnounced(undefined, 'identity', claims, this.#limits.fileSizeMaxBytes);
    const current = (await this.#catalog.find(name))?.entry;
    const refusal = refusalOfPut(current, intent);
    if (refusal !== undefined) return { kind: 'settled', result: await this.#resultOf(intent, refusal) };
    if (current === undefined) await this.#checkTree(name);
    if (!options.mayLink || claims.digest === undefined) return { kind: 'body-needed' };
    const blob = await this.#ingest.findStored(claims.digest);
    if (blob === undefined) return { kind: 'body-needed' };
    if (claims.logicalSize !== undefined && claims.logicalSize !== blob.logicalSize) {
      throw sizeMismatch(claims.logicalSize, blob.logicalSize);
    }
    const { digest, logicalSize, storedSize, encoding } = blob;
    const content = { digest, logicalSize, storedSize, encoding, content: { kind: 'stored' } } as const;
    const outcome = await this.#change(() => this.#ingest.commit(intent, content));
    if (outcome.kind === 'content-missing') return { kind: 'body-needed' };
    return { kind: 'settled', result: await this.#resultOf(intent, outcome) };
  }

  /** The catalog decides in the end; here the sender of a large body is spared sending it. */
  async #checkTree(name: FileName): Promise<void> {
    for (const ancestor of ancestorsOf(name)) {
      if ((await this.#catalog.find(ancestor)) !== undefined) throw nameConflict(name, ancestor);
    }
    if ((await this.#catalog.kindOfDirectory(`${name}/`)) === 'directory')
      throw nameConflict(name, undefined);
  }

  async put(intent: PutIntent, body: PutBody, options: PutOptions = {}): Promise<PutResult> {
    checkAnnounced(body.announcedSize, body.encoding, intent.claims, this.#limits.fileSizeMaxBytes);
    const outcome = await this.#change(() => this.#ingest.put(intent, body, options.signal));
    return await this.#resultOf(intent, outcome);
  }

  async remove(intent: {
    readonly name: FileName;
    readonly version: number;
    readonly precondition?: PutIntent['precondition'];
  }): Promise<RemoveResult | undefined> {
    const { name, version, precondition } = intent;
    const change = { name, version, ...(precondition === undefined ? {} : { precondition }) };
    const outcome = await this.#change(() => this.#catalog.remove(change));
    switch (outcome.kind) {
      case 'absent':
        return undefined;
      case 'precondition-failed':
        throw preconditionFailed(name);
      case 'superseded':
        return { version: outcome.version, removed: false };
      case 'removed':
        this.#onRelease();
        return { version: outcome.version, removed: true };
    }
  }

  kindOfDirectory(directory: string): Promise<'directory' | 'file' | 'absent'> {
    return this.#catalog.kindOfDirectory(directory);
  }

  listNames(directory: string, options?: ListOptions): AsyncIterable<readonly FileName[]> {
    return this.#catalog.listNames(directory, options);
  }

  listEntries(directory: string, options?: ListOptions): AsyncIterable<readonly Entry[]> {
    return this.#catalog.listEntries(directory, options);
  }

  stats(): Promise<StoreStats> {
    return this.#catalog.stats();
  }

  async probe(): Promise<void> {
    this.#checkOpen();
    // A name that was never asked for: what is remembered of others would hide a catalog that cannot be read.
    const unused = parseFileName(`/${randomBytes(16).toString('hex')}`);
    await Promise.all([this.#catalog.probe(), this.#catalog.find(unused), this.#blobs.probe()]);
  }

  /** Refuses new changes and waits for those under way; catalog and blob store stay open for their owner. */
  close(): Promise<void> {
    this.#closed = true;
    this.#closing ??= new Promise((resolve) => {
      if (this.#running === 0) resolve();
      else this.#onIdle = resolve;
    });
    return this.#closing;
  }

  #checkOpen(): void {
    if (this.#closed)
      throw new FiletrackerError('unavailable', 'Cannot change the store: it is being closed');
  }

  async #change<Outcome>(change: () => Promise<Outcome>): Promise<Outcome> {
    this.#checkOpen();
    this.#running += 1;
    try {
      return await change();
    } finally {
      this.#running -= 1;
      if (this.#running === 0) this.#onIdle?.();
    }
  }

  async #resultOf(intent: PutIntent, outcome: SettledPut): Promise<PutResult> {
    switch (outcome.kind) {
      case 'stored':
        this.#onRelease();
        return { version: outcome.version, stored: true, deduplicated: outcome.deduplicated };
      case 'superseded':
        return await this.#superseded(intent.name, outcome.version);
      case 'precondition-failed':
        throw preconditionFailed(intent.name);
      case 'name-conflict':
        throw nameConflict(intent.name, outcome.other);
      case 'limit-reached':
        throw quotaExceeded(intent.name, outcome.limit);
    }
  }

  /** Looked up only now, because it is rare: what was removed, or put again, since the decision is told as it is by now. */
  async #superseded(name: FileName, version: number): Promise<PutResult> {
    const removed = (await this.#catalog.find(name)) === undefined;
    return { version, stored: false, deduplicated: false, ...(removed && { removed }) };
  }

  /** Marks a content whose bytes were found wrong, so that the next put of it brings it anew. */
  #damageFound(entry: Entry, error: unknown): void {
    this.#reportProblem(`Cannot read the content "${entry.digest}" of "${entry.name}"`, error);
    this.#catalog.markDamaged(entry.digest, true).catch((failure: unknown) => {
      this.#reportProblem(`Cannot mark the content "${entry.digest}" as damaged`, failure);
    });
  }
}

function preconditionFailed(name: FileName): FiletrackerError {
  const text = `Cannot change "${name}": it is not in the state that the request asks for`;
  return new FiletrackerError('precondition-failed', text, { details: { name } });
}

function quotaExceeded(name: FileName, limit: string): FiletrackerError {
  return new FiletrackerError('quota-exceeded', `Cannot store "${name}": ${limit}`);
}

/** Does not say which one: its sender may lack the right to read that. */
function nameConflict(name: FileName, other: FileName | undefined): FiletrackerError {
  const state =
    other === undefined || other.startsWith(`${name}/`)
      ? 'there are files below it, as below a directory'
      : 'one of the directories above it is a file';
  return new FiletrackerError('name-conflict', `Cannot store "${name}": ${state}`, { details: { name } });
}
