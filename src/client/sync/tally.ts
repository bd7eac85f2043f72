import { FiletrackerError, isFiletrackerError, messageOf } from '../../core/errors.ts';
import type { TransferProgress } from '../transfer/download.ts';
import type { Exclusions } from './exclusions.ts';
import type { FileInfo, RemoteListOptions } from '../file-client.ts';
import { fromLocalError } from '../local-errors.ts';

/** What was done, or with a dry run would be, with one file. */
export type TreeAction =
  | 'fetched'
  | 'sent'
  | 'unchanged'
  | 'deleted'
  /** Nothing was overwritten because the other side's is newer, or nothing deleted because transfers failed. */
  | 'kept'
  | 'skipped'
  /** Removed at the source while the tree was being sent. */
  | 'vanished'
  | 'failed';

export interface TreeEvent {
  readonly action: TreeAction;
  /** Name on the server, with the version where there is one; undefined for what can have none. */
  readonly name: string | undefined;
  /** Local path; undefined for what is on the server alone. */
  readonly path: string | undefined;
  readonly size: number | undefined;
  /** Why a file was kept or skipped, or failed. */
  readonly reason?: string | undefined;
}

export interface TreeOptions {
  /** The files that the client can get. */
  readonly list: (options: RemoteListOptions) => AsyncIterable<FileInfo>;
  /** Leave out what is the same on both sides. */
  readonly onlyChanged: boolean;
  /** Tell that by digests; without it the same size and version are taken for the same content. */
  readonly checksum: boolean;
  /** Remove at the target what is not at the source. */
  readonly delete: boolean;
  /** With `delete`: also if the source holds nothing at all, as a disk that is not mounted does. */
  readonly allowEmpty: boolean;
  /** What is neither copied nor deleted. */
  readonly exclusions: Exclusions;
  /** The cache in use, which is never part of a tree. */
  readonly cacheFolder: string | undefined;
  /** Overwrite what is newer at the target; on a server by a version that is newer still. */
  readonly force: boolean;
  /** Take the same decisions, as far as lists and folders tell, and change nothing. */
  readonly dryRun: boolean;
  /** Whether the names at the target form a tree, as those on a server do. */
  readonly namesFormTree: boolean;
  /** Transfers at the same time. */
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
  /** Called with what of a tree a store does not keep: execute bits and empty folders. */
  readonly onLoss: (text: string) => void;
  /** Called with bytes that have passed, and with the number of bytes there are when it is known. */
  readonly onBytes: (bytes: number) => void;
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

/** Counts and tells what happens. */
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

  tell(event: TreeEvent): void {
    this.#counts[event.action] += 1;
    if (event.action === 'fetched' || event.action === 'sent') this.#bytes += event.size ?? 0;
    this.#options.onEvent(event);
  }

  /** Tells of a folder that is left out, however many files would be in it. */
  skipOnce(path: string, reason: string): void {
    if (this.#skipped.has(path)) return;
    this.#skipped.add(path);
    this.tell({ action: 'skipped', name: undefined, path, size: undefined, reason });
  }

  expect(bytes: number): void {
    this.#total += bytes;
    this.#options.onTotal(this.#total);
  }

  /** Runs the work on one file; its failure is told, unless the others would fail too. */
  async guard(event: Omit<TreeEvent, 'action'>, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      const translatedError = fromLocalError(error, `write "${event.path ?? event.name}"`);
      if (!isFiletrackerError(translatedError) || fatalCodes.has(translatedError.code)) throw translatedError;
      this.#failedWork += 1;
      this.tell({ ...event, action: 'failed', reason: messageOf(translatedError) });
    }
  }

  /**
   * Removes a file at the target. Not once a transfer has failed: the file may be the last copy of what the source
   * lost, or of what did not arrive under another name. Gives whether it is gone, or with a dry run would be.
   */
  async remove(event: Omit<TreeEvent, 'action'>, work: () => Promise<void>): Promise<boolean> {
    if (this.#failedWork > 0) {
      this.tell({ ...event, action: 'kept', reason: 'it was not deleted, because something else failed' });
      return false;
    }
    let removed = false;
    await this.guard(event, async () => {
      if (!this.#options.dryRun) await work();
      removed = true;
      this.tell({ ...event, action: 'deleted' });
    });
    return removed;
  }

  /** Whether something did not arrive, so that nothing is deleted. */
  get hasFailed(): boolean {
    return this.#failedWork > 0;
  }

  get summary(): TreeSummary {
    return { ...this.#counts, bytes: this.#bytes };
  }
}

/** The error of a source without files, which is more often a mistake than what the user wants to have everywhere. */
export function emptySource(source: string, target: string): FiletrackerError {
  const advice = 'see that it is what you mean and that its disk is mounted, or give --allow-empty';
  return new FiletrackerError(
    'invalid-argument',
    `Cannot delete everything in "${target}": "${source}" holds no files; ${advice}`,
  );
}

/** Passes on how much of one file was transferred since it was last asked. */
export class Steps {
  readonly #onBytes: (bytes: number) => void;
  #done = 0;

  constructor(onBytes: (bytes: number) => void) {
    this.#onBytes = onBytes;
  }

  readonly onProgress = ({ phase, done }: TransferProgress): void => {
    if (phase !== 'reading') this.#to(done);
  };

  /** What needed no transfer is done too. */
  end(size: number): void {
    this.#to(size);
  }

  #to(done: number): void {
    this.#onBytes(done - this.#done);
    this.#done = done;
  }
}
