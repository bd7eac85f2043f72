import { open, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, fromSystemError } from '../../core/errors.ts';
import type { FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { removeFile, writeFileDurably } from '../../fs/durable-file.ts';
import { FolderLock } from '../../fs/locks/folder-lock.ts';
import { makeFolderDurably, privateFolderMode, syncFolder, unlessMissing } from '../../fs/folders.ts';

/** Subfolder of the store's folder for deletions and locks of imports. */
export const importFolderName = 'fallback';
const fileName = 'deletions.jsonl';
const lockFileName = 'deletions.lock';

/**
 * Names that were deleted here while files are imported from an old server, which still has them, with the version that
 * was deleted. A file of one JSON line per deletion, shared by the processes of a server.
 *
 * Invariant: a deletion is in the file, synced, before its promise resolves. `upTo` sees every deletion that any process
 * had recorded before the call. No line is ever removed: a name that is stored again is found in the store first.
 */
export class Tombstones {
  readonly #folder: string;
  readonly #path: string;
  readonly #versions = new Map<string, FileVersion>();
  #readBytes = 0;
  #reading: Promise<void> | undefined;

  constructor(folder: string) {
    this.#folder = folder;
    this.#path = join(folder, fileName);
  }

  /** The newest version of a name that was deleted here. */
  async upTo(name: FileName): Promise<FileVersion | undefined> {
    await this.#refresh();
    return this.#versions.get(name);
  }

  /** Whether a name was deleted here, as of the last `upTo`. */
  has(name: FileName): boolean {
    return this.#versions.has(name);
  }

  async record(name: FileName, version: FileVersion): Promise<void> {
    const line = `${JSON.stringify([name, version])}\n`;
    await using _lock = await FolderLock.acquire(this.#folder, { mode: 'exclusive', fileName: lockFileName });
    try {
      const file = await open(this.#path, 'a+');
      try {
        const { size } = await file.stat();
        // A line that a crash truncated must not be joined with the next one.
        const last = Buffer.alloc(1);
        if (size > 0) await file.read(last, 0, 1, size - 1);
        await file.appendFile(size > 0 && last[0] !== 0x0a ? `\n${line}` : line);
        await file.sync();
      } finally {
        await file.close();
      }
      await syncFolder(this.#folder);
    } catch (error) {
      throw fromSystemError(error, 'record a deletion');
    }
    await this.#refresh();
  }

  async #refresh(): Promise<void> {
    // A deletion may have been recorded after a read in progress began, so a caller waits for that read and reads again.
    await this.#reading;
    this.#reading ??= this.#readRest().finally(() => {
      this.#reading = undefined;
    });
    await this.#reading;
  }

  async #readRest(): Promise<void> {
    try {
      if ((await stat(this.#path)).size <= this.#readBytes) return;
      const rest = (await readFile(this.#path)).subarray(this.#readBytes);
      const end = rest.lastIndexOf(0x0a) + 1;
      for (const line of rest.subarray(0, end).toString().split('\n')) this.#take(line);
      this.#readBytes += end;
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw fromSystemError(error, 'read the deletions');
    }
  }

  #take(line: string): void {
    let read: unknown;
    try {
      read = JSON.parse(line);
    } catch {
      return; // An empty line, or one that a crash truncated: that deletion was never acknowledged.
    }
    const [name, version] = Array.isArray(read) ? (read as unknown[]) : [];
    if (typeof name !== 'string' || typeof version !== 'number') return;
    this.#versions.set(name, Math.max(version, this.#versions.get(name) ?? version));
  }
}

/** Replaces the deletions recorded in a store with those of other stores together; removes them if there are none. */
export async function copyDeletions(sources: readonly string[], target: string): Promise<void> {
  const found: Buffer[] = [];
  for (const source of sources) {
    const lines = await unlessMissing(
      readFile(join(source, importFolderName, fileName)),
      'read the deletions',
    );
    // A line that is being written may be incomplete, and must not be joined with the next one.
    if (lines !== undefined) found.push(lines, Buffer.from('\n'));
  }
  const folder = join(target, importFolderName);
  if (found.length === 0) {
    await removeFile(join(folder, fileName));
    return;
  }
  await makeFolderDurably(folder, privateFolderMode);
  await writeFileDurably(join(folder, fileName), Buffer.concat(found));
}
