import { closeSync, fsyncSync, openSync, rmSync, statSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { checkStoredFormat } from '../../../core/release.ts';
import { writeFileDurably } from '../../../fs/durable-file.ts';

// `catalog/state.json` records whether the index may be trusted. LMDB runs without syncs, so its writes are certain only
// as long as the page cache that took them: until the next boot of the kernel, and for the very file that was written,
// not for a copy made meanwhile.
//
// Format 2 differs from format 1 only in its number: release 3.0 then does not take over an index that belongs to a
// journal with segments of format 2, but reads the journal, and finds that it cannot.

interface IndexState {
  readonly format: 2;
  /** Whether the index was closed and synced, and nothing has written to it since. */
  readonly clean: boolean;
  readonly bootId: string;
  /** Of the data file. */
  readonly inode: number;
}

const stateFileName = 'state.json';
const dataFileName = 'data.mdb';
const knownFormats = [1, 2];

async function currentBootId(): Promise<string> {
  try {
    return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  } catch {
    // Without a boot id nothing is known after a crash: an id that equals no other causes a rebuild.
    return `unknown-${process.pid}-${process.hrtime.bigint()}`;
  }
}

/** @throws FiletrackerError `corrupt-store` for a newer format. */
async function readState(folder: string): Promise<IndexState | undefined> {
  let content: unknown;
  try {
    content = JSON.parse(await readFile(join(folder, stateFileName), 'utf8'));
  } catch {
    // Without a readable state the index is rebuilt, which is always right.
    return undefined;
  }
  checkStoredFormat(`catalog/${stateFileName}`, content, knownFormats);
  const { clean, bootId, inode } = (content ?? {}) as Partial<IndexState>;
  if (typeof clean !== 'boolean' || typeof bootId !== 'string' || typeof inode !== 'number') return undefined;
  return { format: 2, clean, bootId, inode };
}

/** Checks that this release may use the index of a folder, if there is one. @throws as `trustOfIndex`. */
export async function checkIndexFormat(folder: string): Promise<void> {
  await readState(folder);
}

/** The inode of the data file in a folder; `undefined` if there is none. */
export function inodeOfIndex(folder: string): number | undefined {
  return statSync(join(folder, dataFileName), { throwIfNoEntry: false })?.ino;
}

/**
 * How far the index in a folder may be trusted: `clean` after it was closed, `alive` after its process died, else `none`.
 * @throws FiletrackerError `corrupt-store` for a newer format.
 */
export async function trustOfIndex(folder: string): Promise<'clean' | 'alive' | 'none'> {
  const state = await readState(folder);
  const data = await stat(join(folder, dataFileName)).catch(() => undefined);
  if (state === undefined || data === undefined) return 'none';
  if (state.clean) return 'clean';
  return state.inode === data.ino && state.bootId === (await currentBootId()) ? 'alive' : 'none';
}

/** Records that the index is in use (`clean: false`) or was closed and synced. */
export async function writeIndexState(folder: string, clean: boolean): Promise<void> {
  const { ino } = await stat(join(folder, dataFileName));
  const state: IndexState = { format: 2, clean, bootId: await currentBootId(), inode: ino };
  await writeFileDurably(join(folder, stateFileName), Buffer.from(`${JSON.stringify(state)}\n`));
}

/** Makes the next opening rebuild the index in a folder. Not `async`, so that nothing reads the index meanwhile. */
export function distrustIndex(folder: string): void {
  rmSync(join(folder, stateFileName), { force: true });
  const descriptor = openSync(folder, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** The files of the index, to be removed before a rebuild. */
export const indexLockFileName = 'lock.mdb';
export const indexFileNames: readonly string[] = [stateFileName, dataFileName, indexLockFileName];
export const indexDataFileName = dataFileName;
