import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../../../test/support/temporary-folder.ts';
import { FolderLock } from './folder-lock.ts';

const exclusive = { mode: 'exclusive' } as const;
const shared = { mode: 'shared' } as const;

/** A process that holds flock(2) on the lock file, by the system's own program, until it is killed. */
async function holder(folder: string): Promise<ReturnType<typeof spawn>> {
  const script = 'echo held; exec sleep 60';
  const child = spawn('flock', ['--no-fork', `${folder}/lock`, 'sh', '-c', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  return child;
}

describe('FolderLock', () => {
  it('excludes others until it is released', async () => {
    const folder = await temporaryFolder();
    const first = await FolderLock.tryAcquire(folder, exclusive);
    expect(first).toBeDefined();
    expect(await FolderLock.tryAcquire(folder, exclusive)).toBeUndefined();
    expect(await FolderLock.tryAcquire(folder, shared)).toBeUndefined();
    await first?.release();
    await first?.release();
    await using second = await FolderLock.tryAcquire(folder, exclusive);
    expect(second).toBeDefined();
  });

  it('is shared by readers and waits for the last of them', async () => {
    const folder = await temporaryFolder();
    const one = await FolderLock.acquire(folder, shared);
    const two = await FolderLock.acquire(folder, shared);
    let held = false;
    const waiting = FolderLock.acquire(folder, exclusive).then((lock) => {
      held = true;
      return lock;
    });
    await one.release();
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(held).toBe(false);
    await two.release();
    await (await waiting).release();
  });

  it('is freed by the death of the process that holds it', async () => {
    const folder = await temporaryFolder();
    const child = await holder(folder);
    expect(await FolderLock.tryAcquire(folder, exclusive)).toBeUndefined();
    const waiting = FolderLock.acquire(folder, exclusive);
    child.kill('SIGKILL');
    await (await waiting).release();
  });

  it('gives up waiting when the signal says so', async () => {
    const folder = await temporaryFolder();
    await using _held = await FolderLock.acquire(folder, exclusive);
    const waiting = FolderLock.acquire(folder, { ...exclusive, signal: AbortSignal.timeout(30) });
    await expect(waiting).rejects.toMatchObject({ code: 'aborted' });
    const late = FolderLock.acquire(folder, { ...exclusive, signal: AbortSignal.abort() });
    await expect(late).rejects.toMatchObject({ code: 'aborted' });
  });

  it('locks each file name by itself', async () => {
    const folder = await temporaryFolder();
    await using _held = await FolderLock.acquire(folder, exclusive);
    await using other = await FolderLock.tryAcquire(folder, { ...exclusive, fileName: 'other' });
    expect(other).toBeDefined();
  });
});
