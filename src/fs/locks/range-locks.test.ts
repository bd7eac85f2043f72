import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { temporaryFolder } from '../../../test/support/temporary-folder.ts';
import { RangeLocks } from './range-locks.ts';

async function lockPath(): Promise<string> {
  return join(await temporaryFolder(), 'lock');
}

function opened(path: string): RangeLocks {
  const locks = new RangeLocks(path);
  onTestFinished(() => locks.close());
  return locks;
}

test.each(['one object', 'two objects'])(
  'RangeLocks exclude each other in one process (%s)',
  async (which) => {
    const path = await lockPath();
    const one = opened(path);
    const two = which === 'one object' ? one : opened(path);
    const shared = [await one.tryAcquire(7, 'shared'), await two.tryAcquire(7, 'shared')];
    expect(shared).not.toContain(undefined);
    expect(await two.tryAcquire(7, 'exclusive')).toBeUndefined();
    for (const lock of shared) lock?.release();
    const exclusive = await one.acquire(7, 'exclusive');
    expect(await two.tryAcquire(7, 'shared')).toBeUndefined();
    expect(await two.tryAcquire(8, 'exclusive')).toBeDefined();
    exclusive.release();
    exclusive.release();
    const again = await two.tryAcquire(7, 'exclusive');
    expect(again).toBeDefined();
    // Letting go a second time takes nothing from the next holder.
    exclusive.release();
    expect(await one.tryAcquire(7, 'shared')).toBeUndefined();
  },
);

test('RangeLocks need no room, however many there are', async () => {
  const path = await lockPath();
  const locks = opened(path);
  for (let index = 0; index < 500; index += 1) await locks.acquire(index * 2 ** 41, 'exclusive');
  expect(statSync(path).size).toBe(0);
});

test('RangeLocks.acquire() waits until the lock is free, or until it is aborted', async () => {
  const locks = opened(await lockPath());
  const held = await locks.acquire(1, 'exclusive');
  const signal = AbortSignal.timeout(30);
  await expect(locks.acquire(1, 'exclusive', { signal })).rejects.toMatchObject({ code: 'aborted' });
  const waiting = locks.acquire(1, 'exclusive');
  held.release();
  (await waiting).release();
});

test('RangeLocks of a process that is killed are free at once', async () => {
  const path = await lockPath();
  const koffi = createRequire(import.meta.url).resolve('koffi');
  const code = `
    const koffi = require(${JSON.stringify(koffi)}), fs = require('node:fs');
    const flock = koffi.struct({ type: 'int16', whence: 'int16', start: 'int64', length: 'int64', pid: 'int32' });
    const fcntl = koffi.load(null).func('fcntl', 'int', ['int', 'int', koffi.pointer(flock)]);
    const fd = fs.openSync(${JSON.stringify(path)}, 'a+');
    console.log(fcntl(fd, 37, { type: 1, whence: 0, start: 5, length: 1, pid: 0 }));
    setInterval(() => undefined, 1000);`;
  const child = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [answer] = (await once(child.stdout, 'data')) as [Buffer];
  expect(answer.toString()).toBe('0\n');
  const locks = opened(path);
  expect(await locks.tryAcquire(5, 'shared')).toBeUndefined();
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect(await locks.tryAcquire(5, 'exclusive')).toBeDefined();
});
