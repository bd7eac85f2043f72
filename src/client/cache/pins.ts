import { isDigest } from '../../core/digest.ts';
import type { Digest } from '../../core/digest.ts';
import { formatVersionedName } from '../../core/file-name.ts';
import type { FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { removeIfThere } from '../transfer/targets.ts';
import type { CacheFiles } from './files.ts';
import { fileForms } from './layout.ts';
import type { CacheLayout } from './layout.ts';
import { readSmallFile } from './names.ts';
import type { CacheNames } from './names.ts';
import type { CacheSpace } from './space.ts';
import { forEachFile } from './survey.ts';

/** Why a blob must stay: the user pinned it, or no server has it. */
export type PinReason = 'pin' | 'local';

/**
 * Blobs that eviction skips. `pins/<digest>` has one line for each reason and name, as `pin /a/b@1700000000`; the blob is
 * free when the last line is removed.
 *
 * Invariant: pins change under the lock of the account, which eviction holds too.
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

  /** Pins a blob for a versioned name. Idempotent. */
  async add(digest: Digest, reason: PinReason, name: FileName, version: FileVersion): Promise<void> {
    const line = `${reason} ${formatVersionedName(name, version)}`;
    await this.#space.locked(() => {
      const lines = this.#read(digest);
      if (!lines.includes(line)) this.#write(digest, [...lines, line]);
    });
  }

  /** Removes the pins of a versioned name; returns whether no pin of the blob is left. */
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

  /** Removes pins without a record, which a process leaves if it dies before it writes the record. */
  async sweep(names: CacheNames): Promise<void> {
    const digests: Digest[] = [];
    await forEachFile(this.#layout.pins, fileForms.pin, (name) => {
      if (isDigest(name)) digests.push(name);
    });
    for (const digest of digests) {
      await this.#space.locked(async () => {
        const lines = this.#read(digest);
        const kept: string[] = [];
        for (const line of lines) {
          if (await names.mayHave(line.slice(line.indexOf(' ') + 1), digest)) kept.push(line);
        }
        if (kept.length < lines.length) this.#write(digest, kept);
      });
    }
  }

  /** Whether the user pinned this blob under this versioned name. */
  has(digest: Digest, name: FileName, version: FileVersion): boolean {
    return this.#read(digest).includes(`pin ${formatVersionedName(name, version)}`);
  }

  #read(digest: Digest): string[] {
    return readSmallFile(this.#layout.path('pins', digest))?.split('\n').filter(Boolean) ?? [];
  }

  #write(digest: Digest, lines: readonly string[]): void {
    if (lines.length > 0) this.#files.replace('pins', digest, `${lines.join('\n')}\n`);
    else removeIfThere(this.#layout.path('pins', digest));
  }
}
