import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { servedStore } from '../support/client-server.ts';
import { programPath } from '../support/built-programs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const page = readFileSync(join(process.cwd(), 'docs', 'CLIENT.md'), 'utf8');

function blocks(language: string): string[] {
  return [...page.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, 'gm'))].map(
    ([, code]) => code ?? '',
  );
}

/** A folder where the programs can be called by name and the package imported, as after an installation. */
async function installed(): Promise<{ folder: string; env: NodeJS.ProcessEnv }> {
  const folder = await temporaryFolder();
  for (const name of ['bin', 'node_modules']) mkdirSync(join(folder, name));
  for (const program of ['filetracker', 'filetracker-cache-cleaner']) {
    const path = join(folder, 'bin', program);
    writeFileSync(path, `#!/bin/sh\nexec '${process.execPath}' '${programPath(program)}' "$@"\n`);
    chmodSync(path, 0o755);
  }
  symlinkSync(process.cwd(), join(folder, 'node_modules', 'filetracker'));
  // Without one of its own the folder belongs to whatever package lies above it.
  writeFileSync(join(folder, 'package.json'), '{ "private": true }\n');
  const { url } = await servedStore('embedded');
  const env = { ...process.env, PATH: `${join(folder, 'bin')}:${process.env['PATH']}`, FILETRACKER_URL: url };
  return { folder, env };
}

test('the commands of docs/CLIENT.md do what the page says', async () => {
  const { folder, env } = await installed();
  const script = blocks('sh').join('\n');
  const { stdout } = await promisify(execFile)('bash', ['-euo', 'pipefail', '-c', script], {
    cwd: folder,
    env,
  });
  for (const text of ['/greetings/hello.txt@1700000000', 'deleted  /site/img/a.png@', 'hello, world']) {
    expect(stdout).toContain(text);
  }
}, 120_000);

test('the program of docs/CLIENT.md runs as it stands', async () => {
  const { folder, env } = await installed();
  writeFileSync(join(folder, 'tour.mjs'), blocks('js').join('\n'));
  const { stdout } = await promisify(execFile)(process.execPath, ['tour.mjs'], {
    cwd: folder,
    env: { ...env, FILETRACKER_DIR: join(folder, 'cache') },
  });
  expect(stdout).toContain('all is well');
  expect(stdout).toMatch(/^\/reports\/today\.txt \d+ 12$/m);
  expect(stdout.trim().endsWith('true')).toBe(true);
});
