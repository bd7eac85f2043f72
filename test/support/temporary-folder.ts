import { mkdtemp, rm, stat } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

/** A folder of the running test alone, removed when the test is over. */
export async function temporaryFolder(): Promise<string> {
  return folderIn(tmpdir());
}

/** As `temporaryFolder`, on another file system than that; undefined if this machine has none to write to. */
export async function folderOnAnotherDisk(): Promise<string | undefined> {
  const { dev } = await stat(tmpdir());
  for (const place of ['/dev/shm', process.cwd(), homedir(), '/var/tmp']) {
    const other = await stat(place).catch(() => undefined);
    if (other === undefined || other.dev === dev) continue;
    const folder = await folderIn(place).catch(() => undefined);
    if (folder !== undefined) return folder;
  }
  return undefined;
}

async function folderIn(place: string): Promise<string> {
  const path = await mkdtemp(join(place, 'filetracker-test-'));
  onTestFinished(async () => {
    // What the test has ended may make a last file meanwhile.
    await rm(path, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  });
  return path;
}
