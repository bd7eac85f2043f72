import type { Digest } from '../../core/digest.ts';
import { digestOfFile } from '../../fs/file-digest.ts';
import { isFiletrackerError, messageOf, type ErrorCode } from '../../core/errors.ts';
import { reportItemsMax } from '../../core/limits.ts';
import type { FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { hasVanished, treeItems, type TreeItem } from './file-tree.ts';
import { Steps, type ProgressListener, type StepReport } from '../progress.ts';
import { sideBySide } from '../../streams/side-by-side.ts';

/** Where files are brought to: a server, or a store. */
export interface MigrationTarget {
  /** What is stored under a name. @throws FiletrackerError `damaged-blob` where it may be brought again. */
  stat(name: FileName): Promise<StoredInfo | undefined>;
  /** Stores a file; gives whether its content had to travel. */
  put(file: FileToBring, signal?: AbortSignal): Promise<{ readonly stored: boolean; readonly sent: boolean }>;
}

export interface StoredInfo {
  readonly version: FileVersion;
  readonly size: number | undefined;
  /** Undefined where a legacy server does not tell. */
  readonly digest: Digest | undefined;
}

export type FileToBring = Extract<TreeItem, { kind: 'file' }>;

export interface MigrateOptions {
  /** Folder that names are relative to; the folder of the files unless given. */
  readonly root?: string | undefined;
  /** Files under way at once. */
  readonly jobs?: number | undefined;
  readonly listener?: ProgressListener | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface MigrationProblem {
  readonly path: string;
  readonly reason: string;
}

export interface MigrationReport {
  readonly steps: readonly StepReport[];
  readonly files: number;
  /** Files that were stored by this run. */
  readonly stored: number;
  /** Files of them whose content was there already under another name, so that it was not sent. */
  readonly deduplicated: number;
  /** Files that were there already, in this version and content. */
  readonly present: number;
  /** Files of which a newer version is there, or was removed there. */
  readonly superseded: number;
  readonly bytes: number;
  /** Bytes of content that travelled, before compression. */
  readonly sentBytes: number;
  /** Symbolic links, special files, caches of clients and unfinished downloads. */
  readonly skipped: readonly MigrationProblem[];
  readonly skippedCount: number;
  /** Files and folders that were removed while the tree was being read. */
  readonly vanishedCount: number;
  readonly errors: readonly MigrationProblem[];
  readonly errorCount: number;
}

/** Files under way at once. */
export const defaultJobs = 8;

/** Failures that all other files will share. */
const hopeless: ReadonlySet<ErrorCode> = new Set([
  'unreachable',
  'unauthorized',
  'forbidden',
  'no-space',
  'aborted',
]);

/**
 * Brings a tree of files to a server or a store. What is there in the same version and content is not sent, so a
 * migration that was interrupted is simply run again.
 * @throws FiletrackerError where nothing can go on: `unreachable`, `unauthorized`, `not-found` (of the tree) ….
 */
export async function migrateTree(
  files: string,
  target: MigrationTarget,
  options: MigrateOptions = {},
): Promise<MigrationReport> {
  return new Migration(files, target, options).run();
}

class Migration {
  readonly #files: string;
  readonly #target: MigrationTarget;
  readonly #options: MigrateOptions;
  readonly #steps: Steps;
  readonly #skipped: MigrationProblem[] = [];
  readonly #errors: MigrationProblem[] = [];
  readonly #counts = {
    files: 0,
    stored: 0,
    deduplicated: 0,
    present: 0,
    superseded: 0,
    bytes: 0,
    sentBytes: 0,
    skippedCount: 0,
    vanishedCount: 0,
    errorCount: 0,
  };

  constructor(files: string, target: MigrationTarget, options: MigrateOptions) {
    this.#files = files;
    this.#target = target;
    this.#options = options;
    this.#steps = new Steps(options.listener);
  }

  async run(): Promise<MigrationReport> {
    const { jobs = defaultJobs } = this.#options;
    const totalBytes = await this.#steps.run('count', 'Counting the files', async (advance) => {
      let files = 0;
      let bytes = 0;
      for await (const item of this.#items()) {
        if (item.kind !== 'file') continue;
        files += 1;
        bytes += item.size;
        advance(files);
      }
      return { counts: { files, bytes }, result: bytes };
    });
    await this.#steps.run('bring', 'Bringing the files (bytes)', async (advance) => {
      await sideBySide(this.#items(), jobs, async (item) => {
        this.#options.signal?.throwIfAborted();
        await this.#take(item);
        advance(this.#counts.bytes, totalBytes);
      });
      return { counts: { ...this.#counts }, result: undefined };
    });
    return { steps: this.#steps.reports, ...this.#counts, skipped: this.#skipped, errors: this.#errors };
  }

  #items(): AsyncGenerator<TreeItem, void, void> {
    return treeItems(this.#files, this.#options.root ?? this.#files);
  }

  async #take(item: TreeItem): Promise<void> {
    if (item.kind === 'file') await this.#takeFile(item);
    else if (item.kind === 'skipped') this.#note(this.#skipped, 'skippedCount', item.path, item.reason);
    else if (item.kind === 'refused') this.#note(this.#errors, 'errorCount', item.path, item.reason);
    else this.#counts.vanishedCount += 1;
  }

  async #takeFile(file: FileToBring): Promise<void> {
    try {
      await this.#bring(file);
    } catch (error) {
      if (isFiletrackerError(error) && hopeless.has(error.code)) throw error;
      if (await hasVanished(file.path)) {
        this.#counts.vanishedCount += 1;
        return;
      }
      this.#note(this.#errors, 'errorCount', file.path, messageOf(error));
    }
    this.#counts.files += 1;
    this.#counts.bytes += file.size;
  }

  async #bring(file: FileToBring): Promise<void> {
    const there = await this.#stored(file.name);
    if (there !== undefined && there.version > file.version) {
      this.#counts.superseded += 1;
      return;
    }
    if (there !== undefined && (await isSame(file, there))) {
      this.#counts.present += 1;
      return;
    }
    const { stored, sent } = await this.#put(file);
    if (!stored) this.#counts.superseded += 1;
    else this.#counts.stored += 1;
    if (sent) this.#counts.sentBytes += file.size;
    else if (stored) this.#counts.deduplicated += 1;
  }

  /** What was removed there in a newer version stays removed, which is no failure of bringing the others. */
  async #put(file: FileToBring): ReturnType<MigrationTarget['put']> {
    try {
      return await this.#target.put(file, this.#options.signal);
    } catch (error) {
      if (isFiletrackerError(error, 'removed')) return { stored: false, sent: false };
      throw error;
    }
  }

  /** Undefined too where the content is damaged: a put brings it anew, and keeps a version that is newer. */
  async #stored(name: FileName): Promise<StoredInfo | undefined> {
    try {
      return await this.#target.stat(name);
    } catch (error) {
      if (isFiletrackerError(error, 'damaged-blob')) return undefined;
      throw error;
    }
  }

  #note(list: MigrationProblem[], count: 'skippedCount' | 'errorCount', path: string, reason: string): void {
    this.#counts[count] += 1;
    if (list.length < reportItemsMax) list.push({ path, reason });
  }
}

/** Whether a stored file is this one; a server that tells no digest is believed by version and size. */
async function isSame(file: FileToBring, there: StoredInfo): Promise<boolean> {
  if (there.version !== file.version) return false;
  if (there.size !== undefined && there.size !== file.size) return false;
  if (there.digest === undefined) return there.size !== undefined;
  return (await digestOfFile(file.path)) === there.digest;
}
