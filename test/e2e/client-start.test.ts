import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { formatDate } from '../../src/protocol/dates.ts';
import { projectFolder } from '../support/built-programs.ts';
import { runProgram } from '../support/programs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { webServer } from '../support/web-server.ts';

vi.setConfig({ testTimeout: 120_000 });

/** A script that Node runs before the program. */
async function before(script: string): Promise<{ readonly NODE_OPTIONS: string }> {
  const path = join(await temporaryFolder(), 'before.cjs');
  writeFileSync(path, script);
  return { NODE_OPTIONS: `--require ${path}` };
}

/** Prints what was loaded when the program ends: files, and modules of Node that its own start does not load. */
const report = `const initial = new Set(process.moduleLoadList);
process.on('exit', () => {
  const modules = process.moduleLoadList.filter((name) => !initial.has(name));
  process.stderr.write(JSON.stringify([...Object.keys(require.cache), ...modules].join(' ')));
});`;

async function fileServer(): Promise<string> {
  const { url } = await webServer((_request, response) => {
    response.writeHead(200, { 'Last-Modified': formatDate(9), 'Content-Length': '5' }).end('hello');
  });
  return url;
}

it('a plain get loads nothing that it does not use', async () => {
  const folder = await temporaryFolder();
  const target = join(folder, 'out');
  const words = ['-r', await fileServer(), '-c', join(folder, 'cache'), 'get', '/a@9', target];
  const environment = await before(report);
  const fetched = await runProgram('filetracker', words, { environment });
  expect(fetched).toMatchObject({ code: 0, stdout: '' });
  expect(fetched.stderr).toContain('NativeModule http');
  expect(fetched.stderr).not.toMatch(/commander|lmdb|pino|NativeModule (?:tls|https)\b/);
  const cached = await runProgram('filetracker', words, { environment });
  expect(cached).toMatchObject({ code: 0, stdout: '' });
  expect(cached.stderr).toContain('serve-cached');
  expect(cached.stderr).not.toMatch(
    /get-plainly|koffi|NativeModule (?:http|net|internal\/modules\/esm\/resolve)\b/,
  );
  expect(await readFile(target, 'utf8')).toBe('hello');
});

it('a program whose work never ends says so and fails', async () => {
  const url = await fileServer();
  // A request that is never answered, and timers that keep no process.
  const environment = await before(`const { EventEmitter } = require('node:events');
const sent = { setTimeout() {}, end() {}, destroy() {} };
require('node:http').request = () => Object.assign(new EventEmitter(), sent);
const { setTimeout: start } = globalThis;
globalThis.setTimeout = (...words) => start(...words).unref();`);
  const folder = await temporaryFolder();
  const words = ['-r', url, '-c', join(folder, 'cache'), 'get', '/a', join(folder, 'out')];
  expect(await runProgram('filetracker', words, { environment })).toMatchObject({
    code: 13,
    stdout: '',
    stderr: 'filetracker: Cannot continue: internal error (its work never ends); please report it\n',
  });
});

it('the program also runs under the name of earlier releases', () => {
  const path = join(projectFolder, 'dist', 'cli', 'filetracker.js');
  expect(execFileSync(process.execPath, [path, 'help'], { encoding: 'utf8' })).toMatch(
    /^Usage: filetracker /,
  );
});
