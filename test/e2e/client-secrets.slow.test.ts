import { inspect } from 'node:util';
import { join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { readServerConfig } from '../../src/config/server-config.ts';
import { Client } from '../../src/client/client.ts';
import { runProgram } from '../support/programs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

vi.setConfig({ testTimeout: 120_000 });

const url = 'http://writer:SECRET@127.0.0.1:9';

const commands: readonly (readonly [program: string, ...words: string[]])[] = [
  ['filetracker', '-r', url, '--retry-for', '0', 'version', '/a'],
  ['filetracker', '-r', 'writer:SECRET@host', 'ls'],
  ['filetracker', '-r', 'http://w:SE/CRET@h', 'ls'],
  ['filetracker', '-r', 'http://w:SECRET@b@h:99999', 'ls'],
  ['filetracker', '-r', url, 'get', '/a', url],
  ['filetracker', '-c', url, '--offline', 'get', '/a', 'out'],
  ['filetracker', url, 'ls'],
  ['filetracker', `--url=${url}`, 'ls'],
  ['filetracker', 'put', url, '/a'],
  ['filetracker-migrate', url, 'folder'],
  ['filetracker-migrate', '.', url, url],
  ['filetracker-recover', 'postgres://u:SECRET@127.0.0.1:9/db,s3://bucket'],
  ['filetracker-recover', 'postgres:/u:SECRET@127.0.0.1/db'],
  ['filetracker-server', '--fallback-url', url],
  ['filetracker-server', '--blobs', 's3://key:SECRET@bucket'],
  ['filetracker-server', '--blobs', 's3://bucket', '--s3-endpoint', 'https://key:SECRET@host'],
  ['filetracker-server', '--catalog', 'postgres://u:SE/CRET@h/db'],
  ['filetracker-server', '--catalog', url],
  ['filetracker-server', 'backup', 'postgres://u:SECRET@h/db', 'target'],
  ['filetracker-server', 'move', '--from', url, '--to', url],
];

test.each(commands)(
  '%s %s %s %s %s fails without showing the secret of an address',
  async (program, ...words) => {
    const folder = await temporaryFolder();
    const environment = { FILETRACKER_DIR: join(folder, 'store') };
    const ended = await runProgram(program, words, { folder, environment });
    expect(ended.code).not.toBe(0);
    expect(ended.stderr).not.toBe('');
    expect(ended.stdout + ended.stderr).not.toMatch(/SECRET|CRET@/);
  },
);

test('nothing that can be inspected of an error of the client shows the secret of its address', async () => {
  const client = new Client({ remoteUrl: url, retries: { retriesMax: 0 } });
  onTestFinished(() => client.close());
  const failure = await client.stat('/a').catch((error: unknown) => error);
  const basic = Buffer.from('writer:SECRET').toString('base64');
  for (const shown of [inspect(failure, { depth: 9, showHidden: true }), inspect(client, { depth: 9 })]) {
    expect(shown).not.toContain('SECRET');
    expect(shown).not.toContain(basic);
  }
  expect(() => readServerConfig({ fallbackUrl: 'http://w:SECRET@h' }, {})).toThrow(/"http:\/\/…@h"/);
});
