import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

/** A folder of the running test alone, removed when the test is over. */
export async function temporaryFolder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'filetracker-test-'));
  onTestFinished(async () => {
    // What the test has ended may make a last file meanwhile.
    await rm(path, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  });
  return path;
}
