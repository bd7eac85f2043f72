import { closeSync, constants, fstatSync, lstatSync, openSync, unlinkSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { digestOf } from '../../core/digest.ts';
import { loadSystemCalls, type SystemCalls } from '../../fs/native.ts';
import { pathOfDescriptor } from '../cache/blob.ts';
import {
  creationMode,
  keepAttributes,
  keepAttributesAt,
  keptAttributes,
  publishTarget,
  removeIfThere,
  temporaryPathFor,
} from './target-file.ts';
import type { KeptAttributes } from './target-file.ts';

/** Downloads to one target at the same time that have a name of their own to be found by; further ones just have one. */
const numbersMax = 16;

/**
 * A file beside a target for a content that takes long to come.
 *
 * Invariant: its name follows from the target's and a number, and it is locked (flock(2)) as long as it is written to.
 * The kernel takes the lock from a process that dies, so that the next download to the target tells what was left
 * behind, and removes it, from what comes at the same time, which keeps its number. No lock is taken on trust: whoever has
 * got it looks whether the name still stands for the file.
 */
export class PartialFile implements Disposable {
  readonly path: string;
  readonly #descriptor: number | undefined;
  /** What the file at the target leaves to this one. */
  readonly #kept: KeptAttributes | undefined;
  #ended = false;

  private constructor(path: string, kept: KeptAttributes | undefined, descriptor?: number) {
    this.path = path;
    this.#kept = kept;
    this.#descriptor = descriptor;
  }

  /** Creates an empty file, where that can be done; what stands in the way is told to whoever writes to `path`. */
  static async beside(target: string): Promise<PartialFile> {
    // Where files can't be locked, nothing that is left behind can be told from what is in use.
    const locks = await loadSystemCalls().catch(() => undefined);
    const kept = keptAttributes(target);
    if (locks === undefined) return PartialFile.#unlocked(target, kept);
    let partial: PartialFile | undefined;
    for (let number = 0; number < numbersMax; number += 1) {
      const path = numberedPath(target, number);
      const wasThere = removeLeftover(path, locks);
      if (partial !== undefined && !wasThere) break;
      const descriptor = partial === undefined ? createLocked(path, locks, creationMode(kept)) : undefined;
      if (descriptor !== undefined) partial = new PartialFile(path, kept, descriptor);
    }
    return partial ?? PartialFile.#unlocked(target, kept);
  }

  static #unlocked(target: string, kept: KeptAttributes | undefined): PartialFile {
    const path = temporaryPathFor(target);
    const descriptor = tryOpen(
      path,
      constants.O_RDWR | constants.O_CREAT | constants.O_EXCL,
      creationMode(kept),
    );
    return new PartialFile(path, kept, descriptor);
  }

  /** Leads to the file for who writes it, whatever others that can write to the folder make of its name. */
  get ownPath(): string {
    return this.#descriptor === undefined ? this.path : pathOfDescriptor(this.#descriptor, this.path);
  }

  /** Gives the complete file its name. */
  publish(target: string): void {
    if (this.#kept !== undefined) {
      if (this.#descriptor === undefined) keepAttributesAt(this.path, this.#kept);
      else keepAttributes(this.#descriptor, this.#kept);
    }
    publishTarget(this.path, target);
    this.#end();
  }

  /** Removes it unless it was published. Idempotent. */
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

/** The descriptor of a new file, locked; undefined where it can't be made, or somebody else took it for a leftover. */
function createLocked(path: string, locks: SystemCalls, mode: number): number | undefined {
  const descriptor = tryOpen(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, mode);
  if (descriptor === undefined) return undefined;
  try {
    if (isOurs(path, descriptor, locks)) return descriptor;
  } catch {
    // A file system without locks: it would be taken for in use by everyone.
    removeIfThere(path);
  }
  closeSync(descriptor);
  return undefined;
}

/** Removes the file of a process that is gone. Gives whether there was a file. */
function removeLeftover(path: string, locks: SystemCalls): boolean {
  const descriptor = tryOpen(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  if (descriptor === undefined) return false;
  try {
    if (isOurs(path, descriptor, locks)) unlinkSync(path);
  } catch {
    // What can't be locked, or removed by this user, stays.
  } finally {
    closeSync(descriptor);
  }
  return true;
}

/** Undefined where the system refuses: who goes on to write there is told why. */
function tryOpen(path: string, flags: number, mode?: number): number | undefined {
  try {
    return openSync(path, flags, mode);
  } catch {
    return undefined;
  }
}

/** Takes the lock. False where another has it, or the file has another name by now, or none. */
function isOurs(path: string, descriptor: number, locks: SystemCalls): boolean {
  if (!locks.tryLock(descriptor, 'exclusive')) return false;
  const [named, held] = [lstatSync(path, { throwIfNoEntry: false }), fstatSync(descriptor)];
  return named?.ino === held.ino && named.dev === held.dev;
}
