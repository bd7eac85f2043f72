import { mkdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { servedStore } from './client-server.ts';
import { runProgram, type Ended, type StartOptions } from './programs.ts';
import { temporaryFolder } from './temporary-folder.ts';

export interface Shell {
  readonly folder: string;
  readonly url: string;
  /** Runs `filetracker` with the server and a cache. */
  readonly run: (words: readonly string[], options?: StartOptions) => Promise<Ended>;
  /** The same; fails unless it ends well, and gives what it printed. */
  readonly ok: (words: readonly string[], options?: StartOptions) => Promise<string>;
  readonly write: (path: string, content: string | Buffer, version?: number) => string;
}

/** A folder to run `filetracker` in, with a server of ours unless told otherwise. */
export async function shell(withServer = true): Promise<Shell> {
  const folder = await temporaryFolder();
  const url = withServer ? (await servedStore()).url : '';
  const environment = {
    FILETRACKER_URL: url,
    FILETRACKER_DIR: join(folder, 'cache'),
    FILETRACKER_CACHE_MIN_FREE: '0',
  };
  const run: Shell['run'] = (words, options = {}) =>
    runProgram('filetracker', words, {
      folder,
      ...options,
      environment: { ...environment, ...options.environment },
    });
  const ok: Shell['ok'] = async (words, options) => {
    const ended = await run(words, options);
    expect(ended).toMatchObject({ code: 0, stderr: expect.not.stringContaining('Cannot') });
    return ended.stdout;
  };
  const write: Shell['write'] = (path, content, version = 1_700_000_000) => {
    const whole = join(folder, path);
    mkdirSync(join(whole, '..'), { recursive: true });
    writeFileSync(whole, content);
    utimesSync(whole, new Date(version * 1000), new Date(version * 1000));
    return whole;
  };
  return { folder, url, run, ok, write };
}
