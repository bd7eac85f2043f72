import { throwIfAborted } from '../../core/concurrency.ts';
import { FiletrackerError, isFiletrackerError, messageOf } from '../../core/errors.ts';
import type { FileInfo, RemoteListOptions } from '../file-client.ts';
import { fromLocalError } from '../local-errors.ts';
import type { ProgressListener } from '../transfer/download.ts';
import type { Exclusions } from './exclusions.ts';

/** What was done with one file, or would be done without a dry run. */
export type TreeAction =
  | 'fetched'
  | 'sent'
  | 'unchanged'
  | 'deleted'
  /** Not overwritten, because the file at the target is newer, or not deleted, because a transfer failed. */
  | 'kept'
  | 'skipped'
  /** Removed at the source during the transfer. */
  | 'vanished'
  | 'failed';

/** A file of a tree, as far as it is known. */
export interface TreeFile {
  /** Name on the server, with its version if it is known. */
  readonly name?: string | undefined;
  /** Local path. */
  readonly path?: string | undefined;
  readonly size?: number | undefined;
}

export interface TreeEvent extends TreeFile {
  readonly action: TreeAction;
  /** Why a file was kept or skipped, vanished or failed. */
  readonly reason?: string | undefined;
}

export interface TreeOptions {
  /** The files that the client can get. */
  readonly list: (options: RemoteListOptions) => AsyncIterable<FileInfo>;
  /** Transfer only files that differ. */
  readonly onlyChanged: boolean;
  /** Compare digests; without it the same size and version count as the same content. */
  readonly checksum: boolean;
  /** Delete files at the target that are not at the source. */
  readonly delete: boolean;
  /** With `delete`: even if the source is empty, as an unmounted disk is. */
  readonly allowEmpty: boolean;
  /** Files that are neither copied nor deleted. */
  readonly exclusions: Exclusions;
  /** The cache in use, which is never part of a tree. */
  readonly cacheFolder: string | undefined;
  /** Overwrite newer files at the target; on a server by a version that is newer still. */
  readonly force: boolean;
  /** Decide the same, as far as lists and folders show, and change nothing. */
  readonly dryRun: boolean;
  /** Whether the names at the target form a tree, as those on a server do. */
  readonly namesFormTree: boolean;
  /** Concurrent transfers. */
  readonly parallel: number;
  /** Options of each transfer. */
  readonly transfer: {
    readonly toLocalStore?: boolean;
    readonly toRemoteStore?: boolean;
    readonly addToCache?: boolean;
    readonly forceRefresh?: boolean;
    readonly compressHint?: boolean;
  };
  readonly signal?: AbortSignal | undefined;
  readonly onEvent: (event: TreeEvent) => void;
  /** Called for each property of the tree that a store does not keep: execute bits and empty folders. */
  readonly onLoss: (text: string) => void;
  /** Called with the number of bytes transferred since the last call. */
  readonly onBytes: (bytes: number) => void;
  /** Called with the total, each time it grows. */
  readonly onTotal: (bytes: number) => void;
}

export type TreeSummary = Readonly<Record<TreeAction, number>> & { readonly bytes: number };

/** Why a cache in a tree is left out. */
export const cacheReason = 'it is the cache of a client';

/** Errors after which the other files would fail too. */
const fatalCodes: ReadonlySet<string> = new Set([
  'unreachable',
  'timeout',
  'unauthorized',
  'aborted',
  'protocol',
]);

/** Counts and reports what happens to the files of a tree. */
export class Tally {
  readonly #options: TreeOptions;
  readonly #counts = {
    fetched: 0,
    sent: 0,
    unchanged: 0,
    deleted: 0,
    kept: 0,
    skipped: 0,
    vanished: 0,
    failed: 0,
  };
  #bytes = 0;
  #total = 0;
  #failedWork = 0;
  readonly #skipped = new Set<string>();

  constructor(options: TreeOptions) {
    this.#options = options;
  }

  report(event: TreeEvent): void {
    this.#counts[event.action] += 1;
    if (event.action === 'fetched' || event.action === 'sent') this.#bytes += event.size ?? 0;
    this.#options.onEvent(event);
  }

  /** Reports a cache in the tree once, however many files of the tree would be in it. */
  skipCache(path: string): void {
    if (this.#skipped.has(path)) return;
    this.#skipped.add(path);
    this.report({ action: 'skipped', path, reason: cacheReason });
  }

  /** Adds a file of the source to the total. */
  expect(bytes: number): void {
    this.#total += bytes;
    this.#options.onTotal(this.#total);
  }

  /** Passes on the progress of one transfer; `end` adds the bytes that needed no transfer. */
  progress(): { readonly onProgress: ProgressListener; readonly end: (bytes: number) => void } {
    let passed = 0;
    const end = (bytes: number): void => {
      this.#options.onBytes(bytes - passed);
      passed = bytes;
    };
    return { onProgress: ({ phase, done }) => void (phase === 'reading' || end(done)), end };
  }

  /** Runs the work on one file, and reports its failure unless the other files would fail too. */
  async guard(file: TreeFile, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (cause) {
      const error = fromLocalError(cause, `write "${file.path ?? file.name}"`);
      if (!isFiletrackerError(error) || fatalCodes.has(error.code)) throw error;
      this.#failedWork += 1;
      this.report({ ...file, action: 'failed', reason: messageOf(error) });
    }
  }

  /** Reports a file or folder that can't be read or removed. */
  readonly fail = async (path: string, error: unknown): Promise<void> =>
    await this.guard({ path }, () => Promise.reject(error));

  /**
   * Removes a file at the target. Not after a failed transfer: the file may be the last copy of one that the source lost,
   * or that did not arrive under another name. Returns whether it is gone, or would be without a dry run.
   */
  async remove(file: TreeFile, work: () => Promise<void>): Promise<boolean> {
    throwIfAborted(this.#options.signal, `delete "${file.path ?? file.name}"`);
    if (this.hasFailed) {
      this.report({ ...file, action: 'kept', reason: 'it was not deleted, because something else failed' });
      return false;
    }
    let isRemoved = false;
    await this.guard(file, async () => {
      if (!this.#options.dryRun) await work();
      isRemoved = true;
      this.report({ ...file, action: 'deleted' });
    });
    return isRemoved;
  }

  /** Whether some work failed, so that nothing is deleted. */
  get hasFailed(): boolean {
    return this.#failedWork > 0;
  }

  get summary(): TreeSummary {
    return { ...this.#counts, bytes: this.#bytes };
  }
}

/** The error of a source without files, which is more often a mistake than meant to empty the target. */
export function emptySource(source: string, target: string): FiletrackerError {
  const advice = 'check that it is the right one and that its disk is mounted, or use --allow-empty';
  return new FiletrackerError(
    'invalid-argument',
    `Cannot delete everything in "${target}": "${source}" holds no files; ${advice}`,
  );
}
