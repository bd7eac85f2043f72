import { closeSync, constants, fstatSync, lstatSync, openSync, renameSync, unlinkSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { digestOf } from '../../core/digest.ts';
import { loadSystemCalls, type SystemCalls } from '../../fs/native.ts';
import { pathOfDescriptor } from '../cache/blob.ts';
import {
  creationMode,
  keepAttributes,
  keepAttributesAt,
  keptAttributes,
  removeIfThere,
  temporaryPathFor,
} from './targets.ts';
import type { KeptAttributes } from './targets.ts';

/** Concurrent downloads to one target whose files have predictable names; further ones get random names. */
const numbersMax = 16;

const newFileFlags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL;
const readFlags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/**
 * A file beside a target for a long download.
 *
 * Invariant: its name follows from the target's name and a number, and it is locked (flock(2)) while it is written. The
 * kernel releases the lock of a process that dies. So the next download to the target can tell leftovers, which it
 * removes, from files in use. After taking a lock, a process checks that the name still stands for the locked file.
 */
export class PartialFile implements Disposable {
  readonly path: string;
  readonly #descriptor: number | undefined;
  /** Attributes of the file at the target, if there is one. */
  readonly #kept: KeptAttributes | undefined;
  #ended = false;

  private constructor(path: string, kept: KeptAttributes | undefined, descriptor?: number) {
    this.path = path;
    this.#kept = kept;
    this.#descriptor = descriptor;
  }

  /** Creates an empty file if possible; if not, writing to `path` reports why. */
  static async beside(target: string): Promise<PartialFile> {
    // Without locks, leftovers can't be told from files in use.
    const locks = await loadSystemCalls().catch(() => undefined);
    const kept = keptAttributes(target);
    const mode = creationMode(kept);
    let partial: PartialFile | undefined;
    for (let number = 0; number < numbersMax; number += 1) {
      if (locks === undefined) break;
      const path = numberedPath(target, number);
      const wasThere = removeLeftover(path, locks);
      if (partial !== undefined && !wasThere) break;
      const descriptor = partial === undefined ? createLocked(path, locks, mode) : undefined;
      if (descriptor !== undefined) partial = new PartialFile(path, kept, descriptor);
    }
    if (partial !== undefined) return partial;
    const path = temporaryPathFor(target);
    return new PartialFile(path, kept, tryOpen(path, newFileFlags, mode));
  }

  /** Leads to the open file, even if another user replaces its name. */
  get ownPath(): string {
    return this.#descriptor === undefined ? this.path : pathOfDescriptor(this.#descriptor, this.path);
  }

  /** Renames the complete file to the target. */
  publish(target: string): void {
    if (this.#kept !== undefined) {
      if (this.#descriptor === undefined) keepAttributesAt(this.path, this.#kept);
      else keepAttributes(this.#descriptor, this.#kept);
    }
    renameSync(this.path, target);
    this.#end();
  }

  /** Removes the file unless it was published. Idempotent. */
  [Symbol.dispose](): void {
    if (this.#ended) return;
    removeIfThere(this.path);
    this.#end();
  }

  #end(): void {
    this.#ended = true;
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
  }
}

function numberedPath(target: string, number: number): string {
  const tag = digestOf(Buffer.from(`${number}/${basename(target)}`)).slice(0, 16);
  return join(dirname(target), `.filetracker-${tag}`);
}

/** Creates and locks a file; `undefined` if that fails, or another process removed it as a leftover. */
function createLocked(path: string, locks: SystemCalls, mode: number): number | undefined {
  const descriptor = tryOpen(path, newFileFlags, mode);
  if (descriptor === undefined) return undefined;
  try {
    if (isOurs(path, descriptor, locks)) return descriptor;
  } catch {
    // A file system without locks: no process could ever remove the file as a leftover.
    removeIfThere(path);
  }
  closeSync(descriptor);
  return undefined;
}

/** Removes the file of a process that has died. Returns whether there was a file. */
function removeLeftover(path: string, locks: SystemCalls): boolean {
  const descriptor = tryOpen(path, readFlags);
  if (descriptor === undefined) return false;
  try {
    if (isOurs(path, descriptor, locks)) unlinkSync(path);
  } catch {
    // A file that this user can't lock or remove stays.
  } finally {
    closeSync(descriptor);
  }
  return true;
}

/** `undefined` if the system refuses; the download's first write to the path reports why. */
function tryOpen(path: string, flags: number, mode?: number): number | undefined {
  try {
    return openSync(path, flags, mode);
  } catch {
    return undefined;
  }
}

/** Takes the lock; false if another process holds it, or the path no longer names this file. */
function isOurs(path: string, descriptor: number, locks: SystemCalls): boolean {
  if (!locks.tryLock(descriptor, 'exclusive')) return false;
  const [named, held] = [lstatSync(path, { throwIfNoEntry: false }), fstatSync(descriptor)];
  return named?.ino === held.ino && named.dev === held.dev;
}
