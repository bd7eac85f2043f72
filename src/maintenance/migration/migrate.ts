import type { Digest } from '../../core/digest.ts';
import { digestOfFile } from '../../fs/file-digest.ts';
import { isFiletrackerError, messageOf, type ErrorCode } from '../../core/errors.ts';
import type { FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { hasVanished, treeItems, type Excludes, type TreeItem } from './file-tree.ts';
import { FirstItems, Steps, type ProgressListener, type StepReport } from '../progress.ts';
import { sideBySide } from '../../streams/side-by-side.ts';

/** Where files are copied to: a server, or a store. */
export interface MigrationTarget {
  /** What is stored under a name. @throws FiletrackerError `damaged-blob` if it may be stored again. */
  stat(name: FileName): Promise<StoredInfo | undefined>;
  /** Stores a file. `sent`: whether its content had to be transferred. */
  put(file: FileToSend, signal?: AbortSignal): Promise<{ readonly stored: boolean; readonly sent: boolean }>;
}

export interface StoredInfo {
  readonly version: FileVersion;
  readonly size: number | undefined;
  /** `undefined` of a legacy server. */
  readonly digest: Digest | undefined;
}

export type FileToSend = Extract<TreeItem, { kind: 'file' }>;

export interface MigrateOptions {
  /** Folder that names are relative to; the folder of the files unless given. */
  readonly root?: string | undefined;
  /** Files in progress at once. */
  readonly jobs?: number | undefined;
  readonly excludes?: Excludes | undefined;
  readonly listener?: ProgressListener | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A path that could not be migrated or adopted as it is. */
export interface PathProblem {
  readonly path: string;
  readonly reason: string;
}

export interface MigrationReport {
  readonly steps: readonly StepReport[];
  readonly files: number;
  /** Files that were stored by this run. */
  readonly stored: number;
  /** Those of them that were not sent, because their content was already stored under another name. */
  readonly deduplicated: number;
  /** Files that were already stored in this version and content. */
  readonly present: number;
  /** Files whose newer version is stored, or was removed, at the target. */
  readonly superseded: number;
  readonly bytes: number;
  /** Bytes of content that were sent, before compression. */
  readonly sentBytes: number;
  /** Symbolic links, special files, caches of clients and unfinished downloads. */
  readonly skipped: readonly PathProblem[];
  readonly skippedCount: number;
  /** Files and folders that were removed while the tree was being read. */
  readonly vanishedCount: number;
  readonly errors: readonly PathProblem[];
  readonly errorCount: number;
}

/** Files in progress at once. */
export const defaultJobs = 8;

/** Failures that all other files would share. */
const hopeless: ReadonlySet<ErrorCode> = new Set([
  'unreachable',
  'unauthorized',
  'forbidden',
  'no-space',
  'aborted',
]);

/**
 * Copies a tree of files to a server or a store. What is stored there in the same version and content is not sent, so an
 * interrupted migration is simply run again.
 * @throws FiletrackerError that the other files would share: `unreachable`, `unauthorized`, `not-found` (of the tree) ….
 */
export async function migrateTree(
  files: string,
  target: MigrationTarget,
  options: MigrateOptions = {},
): Promise<MigrationReport> {
  const { jobs = defaultJobs, root = files, excludes, listener, signal } = options;
  const steps = new Steps(listener);
  const { bytes: totalBytes } = await steps.run(
    'count',
    'Counting the files',
    async (advance) => {
      const counts = { files: 0, bytes: 0 };
      for await (const item of treeItems(files, root, excludes)) {
        if (item.kind !== 'file') continue;
        counts.files += 1;
        counts.bytes += item.size;
        advance(counts.files);
      }
      return counts;
    },
    (counts) => counts,
  );
  const migration = new Migration(target, signal);
  await steps.run(
    'bring',
    'Copying the files (bytes)',
    (advance) =>
      sideBySide(treeItems(files, root, excludes), jobs, async (item) => {
        signal?.throwIfAborted();
        await migration.take(item);
        advance(migration.sums.bytes, totalBytes);
      }),
    () => migration.counts,
  );
  const { counts, skipped, errors } = migration;
  return { steps: steps.reports, ...counts, skipped: skipped.items, errors: errors.items };
}

class Migration {
  readonly skipped = new FirstItems<PathProblem>();
  readonly errors = new FirstItems<PathProblem>();
  readonly sums = { files: 0, stored: 0, deduplicated: 0, present: 0, superseded: 0, bytes: 0, sentBytes: 0 };
  #vanished = 0;
  readonly #target: MigrationTarget;
  readonly #signal: AbortSignal | undefined;

  constructor(target: MigrationTarget, signal: AbortSignal | undefined) {
    this.#target = target;
    this.#signal = signal;
  }

  get counts(): Omit<MigrationReport, 'steps' | 'skipped' | 'errors'> & Record<string, number> {
    const counts = { skippedCount: this.skipped.count, vanishedCount: this.#vanished };
    return { ...this.sums, ...counts, errorCount: this.errors.count };
  }

  async take(item: TreeItem): Promise<void> {
    if (item.kind === 'file') await this.#takeFile(item);
    else if (item.kind === 'vanished') this.#vanished += 1;
    else this[item.kind === 'skipped' ? 'skipped' : 'errors'].add({ path: item.path, reason: item.reason });
  }

  async #takeFile(file: FileToSend): Promise<void> {
    try {
      await this.#send(file);
    } catch (error) {
      if (isFiletrackerError(error) && hopeless.has(error.code)) throw error;
      if (await hasVanished(file.path)) {
        this.#vanished += 1;
        return;
      }
      this.errors.add({ path: file.path, reason: messageOf(error) });
    }
    this.sums.files += 1;
    this.sums.bytes += file.size;
  }

  async #send(file: FileToSend): Promise<void> {
    // A damaged blob counts as absent: a PUT stores it again, and keeps a version that is newer.
    const there = await this.#target.stat(file.name).catch(unlessCode('damaged-blob', undefined));
    if (there !== undefined && there.version > file.version) {
      this.sums.superseded += 1;
      return;
    }
    if (there !== undefined && (await isSame(file, there))) {
      this.sums.present += 1;
      return;
    }
    // A newer version that was removed there stays removed; that is not a failure.
    const removed = { stored: false, sent: false };
    const put = this.#target.put(file, this.#signal);
    const { stored, sent } = await put.catch(unlessCode('removed', removed));
    this.sums[stored ? 'stored' : 'superseded'] += 1;
    if (sent) this.sums.sentBytes += file.size;
    else if (stored) this.sums.deduplicated += 1;
  }
}

/** Handles a rejection: the value for an error of this code; any other error is thrown again. */
function unlessCode<Value>(code: ErrorCode, value: Value): (error: unknown) => Value {
  return (error) => {
    if (isFiletrackerError(error, code)) return value;
    throw error;
  };
}

/** Whether a stored file is this one. Without a digest, version and size decide. */
async function isSame(file: FileToSend, there: StoredInfo): Promise<boolean> {
  if (there.version !== file.version) return false;
  if (there.size !== undefined && there.size !== file.size) return false;
  if (there.digest === undefined) return there.size !== undefined;
  return (await digestOfFile(file.path)) === there.digest;
}
