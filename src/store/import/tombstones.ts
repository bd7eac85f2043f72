import { open, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, fromSystemError } from '../../core/errors.ts';
import type { FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { removeFile, writeFileDurably } from '../../fs/durable-file.ts';
import { FolderLock } from '../../fs/locks/folder-lock.ts';
import { makeFolderDurably, privateFolderMode, syncFolder } from '../../fs/folders.ts';

/** Where the deletions are, and the locks of imports, in the folder of the store that a server is given. */
export const importFolderName = 'fallback';
const fileName = 'deletions.jsonl';
const lockFileName = 'deletions.lock';

/**
 * The names that were deleted here while files are imported from an old server, which still has them: up to
 * which version. A file of one JSON line per deletion, shared by the processes of a server.
 *
 * Invariant: a deletion is in the file, synced, before its promise resolves; `upTo` sees every deletion that any
 * process had recorded before it was called. Nothing is ever taken out: a name that is stored anew is
 * found in the store, and nobody asks for it here.
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

  /** The newest version of a name that was deleted here; undefined where none was. */
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
        // A line that a crash cut short must not swallow the next one.
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
    // Who comes while the file is being read may have a deletion in mind that came after that began.
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
      return; // An empty line, or one that a crash cut short: that deletion was never acknowledged.
    }
    const [name, version] = Array.isArray(read) ? (read as unknown[]) : [];
    if (typeof name !== 'string' || typeof version !== 'number') return;
    this.#versions.set(name, Math.max(version, this.#versions.get(name) ?? version));
  }
}

/** Makes the deletions that are recorded in a store those of other stores together; removes them where there are none. */
export async function copyDeletions(sources: readonly string[], target: string): Promise<void> {
  const found: Buffer[] = [];
  for (const source of sources) {
    try {
      // One that is being written may be cut short, and must not swallow the next one.
      found.push(await readFile(join(source, importFolderName, fileName)), Buffer.from('\n'));
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw fromSystemError(error, 'read the deletions');
    }
  }
  const folder = join(target, importFolderName);
  if (found.length === 0) {
    await removeFile(join(folder, fileName));
    return;
  }
  await makeFolderDurably(folder, privateFolderMode);
  await writeFileDurably(join(folder, fileName), Buffer.concat(found));
}
