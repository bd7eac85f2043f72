import { randomBytes } from 'node:crypto';
import type { BlobStore } from '../blobs/blob-store.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { FiletrackerError } from '../core/errors.ts';
import { parseFileName, type FileName } from '../core/file-name.ts';
import type { ReportProblem } from '../core/report.ts';
import {
  defaultStoreLimits,
  type Entry,
  type FileStore,
  type ListOptions,
  type PutBody,
  type PutIntent,
  type PutOptions,
  type PutResult,
  type PutWithoutBody,
  type PutWithoutBodyOptions,
  type RemoveIntent,
  type RemoveResult,
  type StoredFile,
  type StoreLimits,
  type StoreStats,
} from './file-store.ts';
import { GetPath } from './get.ts';
import { preconditionFailed, PutPath } from './put.ts';

export interface ComposedFileStoreOptions {
  readonly catalog: Catalog;
  readonly blobs: BlobStore;
  readonly reportProblem: ReportProblem;
  /** Called after a change that may have left a blob without a name. */
  readonly onRelease?: (() => void) | undefined;
  /** Bounds that differ from the defaults. */
  readonly limits?: Partial<StoreLimits> | undefined;
}

/**
 * A file store composed of a catalog and a blob store, which the caller opens and closes.
 *
 * Invariant: what the catalog says is visible. The catalog receives a blob only after all of it is verified
 * (invariant 2) and, if it is staged, durable (invariant 1), and places it in the step that makes it visible
 * (invariant 5). A reader gets the entry and the place of its bytes from one look-up, and looks up again if the bytes
 * are gone before they are open (invariant 3).
 */
export class ComposedFileStore implements FileStore {
  readonly #catalog: Catalog;
  readonly #blobs: BlobStore;
  readonly #puts: PutPath;
  readonly #gets: GetPath;
  readonly #onRelease: () => void;
  #running = 0;
  #closed = false;
  #closing: Promise<void> | undefined;
  #onIdle: (() => void) | undefined;

  constructor(options: ComposedFileStoreOptions) {
    const { catalog, blobs, reportProblem, onRelease = () => undefined } = options;
    const limits = { ...defaultStoreLimits, ...options.limits };
    this.#catalog = catalog;
    this.#blobs = blobs;
    this.#onRelease = onRelease;
    this.#puts = new PutPath({ catalog, blobs, reportProblem, limits, onRelease });
    this.#gets = new GetPath({ catalog, blobs, reportProblem, cacheSizeBytes: limits.readCacheSizeBytes });
  }

  lookUp(name: FileName): Promise<StoredFile | undefined> {
    return this.#gets.lookUp(name);
  }

  putWithoutBody(intent: PutIntent, options: PutWithoutBodyOptions): Promise<PutWithoutBody> {
    return this.#change(() => this.#puts.putWithoutBody(intent, options));
  }

  put(intent: PutIntent, body: PutBody, options?: PutOptions): Promise<PutResult> {
    return this.#change(() => this.#puts.put(intent, body, options));
  }

  async remove(intent: RemoveIntent): Promise<RemoveResult | undefined> {
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
    // A fresh name: the remembered look-ups of other names would hide a catalog that cannot be read.
    const unused = parseFileName(`/${randomBytes(16).toString('hex')}`);
    await Promise.all([this.#catalog.probe(), this.#catalog.find(unused), this.#blobs.probe()]);
  }

  /** Refuses new changes and waits for those in progress. Catalog and blob store stay open for their owner. */
  close(): Promise<void> {
    this.#closed = true;
    this.#closing ??= new Promise((resolve) => {
      if (this.#running === 0) resolve();
      else this.#onIdle = resolve;
    });
    return this.#closing;
  }

  #checkOpen(): void {
    if (!this.#closed) return;
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
}
