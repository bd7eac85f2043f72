import { isDigest } from '../../core/digest.ts';
import type { Digest } from '../../core/digest.ts';
import { formatVersionedName } from '../../core/file-name.ts';
import type { FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import type { CacheFiles } from './files.ts';
import { fileForms } from './layout.ts';
import type { CacheLayout } from './layout.ts';
import { readSmallFile } from './names.ts';
import type { CacheSpace } from './space.ts';
import { forEachFile } from './survey.ts';
import { removeIfThere } from '../transfer/targets.ts';

/** Why a content must stay: the user said so, or no server has it. */
export type PinReason = 'pin' | 'local';

/**
 * Contents that eviction must leave: `pins/<digest>` holds one line for each name that wants it, as
 * `pin /a/b@1700000000`, so that the last one to let go frees it. Changed under the lock of the account,
 * which eviction holds too.
 */
export class CachePins {
  readonly #layout: CacheLayout;
  readonly #space: CacheSpace;
  readonly #files: CacheFiles;

  constructor(layout: CacheLayout, space: CacheSpace, files: CacheFiles) {
    this.#layout = layout;
    this.#space = space;
    this.#files = files;
  }

  /** Keeps a content for a versioned name. Idempotent. */
  async add(digest: Digest, reason: PinReason, name: FileName, version: FileVersion): Promise<void> {
    const line = `${reason} ${formatVersionedName(name, version)}`;
    await this.#space.locked(() => {
      const lines = this.#read(digest);
      if (!lines.includes(line)) this.#write(digest, [...lines, line]);
    });
  }

  /** Lets go of a content, for one reason or for all that a versioned name has; gives whether nothing keeps it now. */
  async remove(
    digest: Digest,
    name: FileName,
    version: FileVersion,
    reasons: readonly PinReason[] = ['pin', 'local'],
  ): Promise<boolean> {
    if (this.#read(digest).length === 0) return true;
    const versionedName = formatVersionedName(name, version);
    const gone = new Set(reasons.map((reason) => `${reason} ${versionedName}`));
    return await this.#space.locked(() => {
      const lines = this.#read(digest).filter((line) => !gone.has(line));
      this.#write(digest, lines);
      return lines.length === 0;
    });
  }

  /** Lets go for names that `isKnown` denies: a process that died may have pinned without coming to its record. */
  async sweep(isKnown: (digest: Digest, versionedName: string) => Promise<boolean>): Promise<void> {
    const digests: Digest[] = [];
    await forEachFile(this.#layout.pins, fileForms.pin, (name) => {
      if (isDigest(name)) digests.push(name);
    });
    for (const digest of digests) {
      await this.#space.locked(async () => {
        const lines = this.#read(digest);
        const kept: string[] = [];
        for (const line of lines) {
          if (await isKnown(digest, line.slice(line.indexOf(' ') + 1))) kept.push(line);
        }
        if (kept.length < lines.length) this.#write(digest, kept);
      });
    }
  }

  /** Whether the user pinned this content under this versioned name. */
  has(digest: Digest, name: FileName, version: FileVersion): boolean {
    return this.#read(digest).includes(`pin ${formatVersionedName(name, version)}`);
  }

  #read(digest: Digest): string[] {
    return readSmallFile(this.#layout.pin(digest))?.split('\n').filter(Boolean) ?? [];
  }

  #write(digest: Digest, lines: readonly string[]): void {
    const path = (): string => this.#layout.pin(digest);
    if (lines.length === 0) {
      removeIfThere(path());
      return;
    }
    this.#files.replaceFile('pins', path, `${lines.join('\n')}\n`);
  }
}
