import { spawnSync } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { transform } from 'esbuild';
import { expect, it } from 'vitest';
import { isSupported } from '../../scripts/supported-node.mjs';
import { programPath, projectFolder } from '../support/built-programs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const programs = [
  'filetracker',
  'filetracker-server',
  'filetracker-migrate',
  'filetracker-recover',
  'filetracker-cache-cleaner',
];

/** Runs a file of the project in a Node.js that says it is another version. */
async function runAs(version: string, path: string): Promise<ReturnType<typeof spawnSync>> {
  const preload = join(await temporaryFolder(), 'version.cjs');
  const versions = `{ ...process.versions, node: '${version}' }`;
  await writeFile(preload, `Object.defineProperty(process, 'versions', { value: ${versions} });\n`);
  return spawnSync(process.execPath, ['--require', preload, path, '--version'], { encoding: 'utf8' });
}

it.each(programs)('%s ends with one line on a Node.js that is too old', async (program) => {
  const { status, stdout, stderr } = await runAs('18.20.8', programPath(program));
  expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
  expect(stderr).toMatch(/^Cannot run Filetracker: this is Node\.js 18\.20\.8; use 20\.19, .* or newer.*\n$/);
  expect((await runAs('22.12.0', programPath(program))).status).toBe(0);
});

it.each(['start.mjs', 'test.mjs', 'test-full.mjs', 'test-nodes.mjs'])(
  'scripts/%s ends with one line on a Node.js that is too old',
  async (script) => {
    const { status, stderr } = await runAs('22.11.0', join(projectFolder, 'scripts', script));
    expect(status).toBe(1);
    expect(stderr).toMatch(/^Cannot run Filetracker: this is Node\.js 22\.11\.0; .*\n$/);
  },
);

it('what is loaded before that line holds nothing that an old Node.js cannot read', async () => {
  const files = [
    'supported-node.js',
    ...programs.map((program) => `${program}.js`),
    'filetracker.cjs',
    'filetracker-server.cjs',
  ];
  for (const file of files) {
    const code = await readFile(join(projectFolder, 'dist', 'cli', file), 'utf8');
    const [current, old] = await Promise.all(
      ['esnext', 'node12.22'].map(async (target) => (await transform(code, { target, format: 'esm' })).code),
    );
    expect(old, file).toBe(current);
  }
});

it('the supported versions are those that the package names', async () => {
  const versions = ['20.19.0', '20.20.2', '22.12.0', '22.23.3', '24.0.0', '26.12.1'];
  expect(versions.filter((version) => !isSupported(version))).toEqual([]);
  const old = ['12.22.12', '18.20.8', '20.18.3', '21.7.3', '22.11.0'];
  expect(old.filter((version) => isSupported(version))).toEqual([]);
  const { engines } = JSON.parse(await readFile(join(projectFolder, 'package.json'), 'utf8')) as {
    readonly engines: { readonly node: string };
  };
  expect(engines.node).toBe('^20.19.0 || >=22.12.0');
});
