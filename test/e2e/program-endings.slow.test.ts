// How every program ends when its output cannot be written, when its user has no home, and when it meets a bug.
import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { servedStore } from '../support/client-server.ts';
import { programPath } from '../support/built-programs.ts';
import { runProgram } from '../support/programs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const programs = [
  'filetracker',
  'filetracker-server',
  'filetracker-cache-cleaner',
  'filetracker-migrate',
  'filetracker-recover',
];

interface Ending {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a script of bash in which `$program` starts the program. */
async function bash(program: string, script: string): Promise<Ending> {
  const start = `"${process.execPath}" "${programPath(program)}"`;
  try {
    const ended = await promisify(execFile)('bash', ['-c', script.replaceAll('$program', start)]);
    return { code: 0, ...ended };
  } catch (error) {
    return error as Ending;
  }
}

test.each(programs)('%s --help ends quietly when its reader closes the pipe', async (program) => {
  const ended = await bash(program, '$program --help | true; echo "${PIPESTATUS[0]}"');
  expect(ended).toMatchObject({ stdout: '0\n', stderr: '' });
});

test.each(programs)('%s reports in one line that its output is on a full disk', async (program) => {
  for (const words of ['--help', '--version']) {
    expect(await bash(program, `$program ${words} > /dev/full`)).toMatchObject({
      code: 1,
      stderr: `${program}: Cannot write to the standard output: the disk is full\n`,
    });
  }
  expect(await bash(program, '$program --no-such-flag 2> /dev/full')).toMatchObject({ stderr: '' });
  expect(await bash(program, '$program --help > /dev/full 2>&1')).toMatchObject({ code: 1, stderr: '' });
});

test('the cleaner and the client report in one line that their results are on a full disk', async () => {
  const folder = await temporaryFolder();
  const { url } = await servedStore();
  mkdirSync(join(folder, 'tree'));
  const cleaner = `$program -c "${folder}" -s 1G --once --json > /dev/full`;
  expect(await bash('filetracker-cache-cleaner', cleaner)).toMatchObject({
    code: 1,
    stderr: 'filetracker-cache-cleaner: Cannot write to the standard output: the disk is full\n',
  });
  expect(
    await bash(
      'filetracker-migrate',
      `$program "${folder}/tree" ${url} > /dev/full 2> "${folder}/err"; exit`,
    ),
  ).toMatchObject({ code: 1 });
});

test('a program reports an error that nothing catches in one line, without a stack', async () => {
  const module = pathToFileURL(join(process.cwd(), 'dist/cli/run-to-end.js')).href;
  const failures = [
    `async () => { throw new TypeError('first line\\nsecond line') }`,
    `async () => { setTimeout(() => { throw new TypeError('first line\\nsecond line') }); }`,
    `async () => { void Promise.reject(new TypeError('first line\\nsecond line')); }`,
  ];
  for (const failure of failures) {
    const script = `import { runToEnd } from '${module}'; await runToEnd('program', ${failure});`;
    const ended = promisify(execFile)(process.execPath, ['--input-type=module', '-e', script]);
    await expect(ended).rejects.toMatchObject({
      code: 1,
      stderr:
        'program: Cannot continue: internal error (TypeError: first line\\nsecond line); ' +
        'please report it, with the output under FILETRACKER_DEBUG=1\n',
    });
  }
});

test('the programs work for a user without a home folder', async () => {
  // Only root can become a user that is not in the password file.
  if (process.geteuid?.() !== 0) return;
  const folder = await temporaryFolder();
  chmodSync(folder, 0o777);
  const { url } = await servedStore();
  const options = { folder, user: { uid: 54_321, gid: 54_321 }, environment: { HOME: '' } };
  const run = (program: string, ...words: readonly string[]) => runProgram(program, words, options);
  const state = 'HOME is not set and the password file has no entry for this user';
  const line = `filetracker: Cannot choose a cache folder: ${state}; name a folder with --cache-dir or FILETRACKER_DIR`;
  expect(await run('filetracker', 'ls')).toMatchObject({ code: 2, stderr: `${line}\n` });
  expect(await run('filetracker', 'get', '/a@1', 'a')).toMatchObject({ code: 2, stderr: `${line}\n` });
  expect(await run('filetracker', '-r', url, 'ls')).toMatchObject({
    code: 0,
    stderr: `${line}; continuing without a cache\n`,
  });
  expect(await run('filetracker', '-c', 'cache', 'ls', '--local')).toMatchObject({ code: 0, stderr: '' });
  const cleaned = await run('filetracker-cache-cleaner', '-c', folder, '-s', '1G', '--once');
  expect(cleaned).toMatchObject({ code: 0, stderr: '' });
  mkdirSync(join(folder, 'tree'));
  expect(await run('filetracker-migrate', 'tree', url, '-s')).toMatchObject({ code: 0, stderr: '' });
});
