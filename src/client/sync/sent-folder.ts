import { stat } from 'node:fs/promises';
import { FiletrackerError } from '../../core/errors.ts';
import { fromLocalError } from '../local-errors.ts';
import { walkFolder } from './local-tree.ts';
import type { LocalFile, SkippedFile } from './local-tree.ts';
import { TreeScope } from './scope.ts';
import type { Tally, TreeOptions } from './tally.ts';

export const vanishedReason = 'it was removed while the tree was being sent';

/** A folder that is sent: its files, and what was found in it that is not sent. */
export class SentFolder {
  readonly #folder: string;
  readonly #scope: TreeScope;
  readonly #tally: Tally;
  readonly #options: TreeOptions;
  readonly #identity: string;
  /** Caches that the walk has met. */
  readonly #caches: string[] = [];

  private constructor(
    folder: string,
    scope: TreeScope,
    tally: Tally,
    options: TreeOptions,
    identity: string,
  ) {
    this.#folder = folder;
    this.#scope = scope;
    this.#tally = tally;
    this.#options = options;
    this.#identity = identity;
  }

  static async open(folder: string, tally: Tally, options: TreeOptions): Promise<SentFolder> {
    const scope = await TreeScope.open(folder, `send the folder "${folder}"`, options);
    return new SentFolder(folder, scope, tally, options, await identityOf(folder));
  }

  async *files(): AsyncGenerator<LocalFile> {
    const { onLoss } = this.#options;
    const tally = this.#tally;
    const walked = walkFolder(this.#folder, this.#scope, {
      onSkipped: (skipped) => this.#skip(skipped),
      // As a failure of the work, because nothing may be deleted for not having been found in there.
      onUnreadable: (path, error) =>
        tally.guard({ name: undefined, path, size: undefined }, () => Promise.reject(error)),
      onVanished: (path) =>
        tally.tell({ action: 'vanished', name: undefined, path, size: undefined, reason: vanishedReason }),
      onEmptyFolder: (path) => onLoss(`"${path}" is an empty folder, which is not stored`),
    });
    for await (const local of walked) {
      tally.expect(local.size);
      if (local.isExecutable) onLoss(`"${local.path}" is executable, which is not stored`);
      yield local;
    }
  }

  #skip({ path, relative, reason, kind, loses }: SkippedFile): void {
    if (kind === 'unfinished') return;
    if (kind === 'cache') this.#caches.push(`${relative}/`);
    const action = loses ? 'failed' : 'skipped';
    this.#tally.tell({ action, name: undefined, path, size: undefined, reason });
  }

  /** Whether a name is of what is not sent, which then stays at the target too. */
  leavesOut(relative: string): boolean {
    return (
      this.#scope.excludesFile(relative) || this.#caches.some((cache) => `${relative}/`.startsWith(cache))
    );
  }

  /** @throws FiletrackerError `io` if another folder is there now, as after its disk was unmounted. */
  async requireSame(): Promise<void> {
    if ((await identityOf(this.#folder)) === this.#identity) return;
    const state = 'it was replaced by another while it was being read; run this again';
    throw new FiletrackerError('io', `Cannot send the folder "${this.#folder}": ${state}`);
  }
}

async function identityOf(folder: string): Promise<string> {
  try {
    const { dev, ino } = await stat(folder, { bigint: true });
    return `${dev}:${ino}`;
  } catch (error) {
    throw fromLocalError(error, `read the folder "${folder}"`);
  }
}
