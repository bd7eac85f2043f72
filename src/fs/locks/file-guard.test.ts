import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { present } from '../../../test/support/present.ts';
import { temporaryFolder } from '../../../test/support/temporary-folder.ts';
import { FileGuard } from './file-guard.ts';

async function file(): Promise<string> {
  const path = join(await temporaryFolder(), 'guarded');
  await writeFile(path, '');
  return path;
}

async function guard(path: string, waitMaxMs?: number): Promise<FileGuard> {
  const opened = present(await FileGuard.open(path, waitMaxMs));
  onTestFinished(() => opened.close());
  return opened;
}

describe('FileGuard', () => {
  it('has nothing to lock where there is no file', async () => {
    expect(await FileGuard.open(join(await temporaryFolder(), 'missing'))).toBeUndefined();
  });

  it('admits shared holders together, and no other beside an exclusive one', async () => {
    const path = await file();
    const [one, other] = [await guard(path), await guard(path, 30)];
    expect(one.run('shared', () => other.run('shared', () => 'both'))).toBe('both');
    const busy = expect.objectContaining({ code: 'busy' });
    expect(() => one.run('exclusive', () => other.run('shared', () => 'both'))).toThrow(busy);
    expect(() => one.run('shared', () => other.run('exclusive', () => 'both'))).toThrow(busy);
  });

  it('is let go of when the work fails', async () => {
    const path = await file();
    const [one, other] = [await guard(path), await guard(path, 30)];
    const fail = (): never => {
      throw new Error('it failed');
    };
    expect(() => one.run('exclusive', fail)).toThrow('it failed');
    expect(other.run('exclusive', () => 'free')).toBe('free');
  });

  it('waits for another process only while it lives', async () => {
    const path = await file();
    const holder = spawn('flock', ['-x', path, 'sh', '-c', 'echo held; exec sleep 30'], {
      stdio: ['ignore', 'pipe', 'ignore'],
      detached: true,
    });
    const end = (): unknown => process.kill(-present(holder.pid), 'SIGKILL');
    onTestFinished(() => void (holder.exitCode === null && holder.signalCode === null && end()));
    await once(holder.stdout, 'data');
    const [patient, hasty] = [await guard(path), await guard(path, 30)];
    expect(() => hasty.run('shared', () => 'in')).toThrow('another process does not release its lock');
    // It is ended from outside, for waiting does not give up this thread.
    spawn('sh', ['-c', `sleep 0.3; kill -9 -${present(holder.pid)}`], { stdio: 'ignore' });
    const startMs = performance.now();
    expect(patient.run('shared', () => 'in')).toBe('in');
    expect(performance.now() - startMs).toBeGreaterThan(100);
  });
});
