import { execFile } from 'node:child_process';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { transform } from 'esbuild';
import { describe, expect, it } from 'vitest';
import { projectFolder } from '../support/built-programs.ts';
import { servedStore } from '../support/client-server.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const page = await readFile(join(projectFolder, 'docs', 'API.md'), 'utf8');
/** Each `@example` of an export, under the export's name. */
const examples = page.split(/^### /m).flatMap((section) => {
  const name = section.slice(0, section.indexOf('\n'));
  const blocks = [...section.matchAll(/^```ts example\n([\s\S]*?)^```$/gm)];
  return blocks.map(([, code = ''], index) => ({ name: index === 0 ? name : `${name}-${index + 1}`, code }));
});

/** An empty project in which the package is installed. */
async function installed(): Promise<string> {
  const folder = await temporaryFolder();
  await mkdir(join(folder, 'node_modules', '@types'), { recursive: true });
  await symlink(projectFolder, join(folder, 'node_modules', 'filetracker'));
  await symlink(
    join(projectFolder, 'node_modules', '@types', 'node'),
    join(folder, 'node_modules', '@types', 'node'),
  );
  await writeFile(join(folder, 'package.json'), '{ "private": true, "type": "module" }\n');
  return folder;
}

describe('the examples of docs/API.md', () => {
  it('are there', () => {
    expect(examples.length).toBeGreaterThan(10);
  });

  it.each(examples)('run against a server: $name', async ({ code }) => {
    const folder = await installed();
    const { url } = await servedStore('embedded');
    const { code: program } = await transform(code, { loader: 'ts', target: 'node20' });
    await writeFile(join(folder, 'example.js'), program);
    const env = {
      ...process.env,
      HOME: folder,
      FILETRACKER_URL: url,
      FILETRACKER_DIR: join(folder, 'cache'),
    };
    await promisify(execFile)(process.execPath, ['example.js'], { cwd: folder, env, timeout: 60_000 });
  });

  it('have the types that the package declares', async () => {
    const folder = await installed();
    await Promise.all(examples.map(({ name, code }) => writeFile(join(folder, `${name}.ts`), code)));
    const compilerOptions = {
      target: 'ES2022',
      module: 'NodeNext',
      lib: ['ES2023', 'ESNext.Disposable'],
      types: ['node'],
      strict: true,
      exactOptionalPropertyTypes: true,
      noEmit: true,
      skipLibCheck: true,
    };
    await writeFile(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions }));
    const compiler = join(projectFolder, 'node_modules', 'typescript', 'bin', 'tsc');
    const { stdout } = await promisify(execFile)(process.execPath, [compiler, '-p', folder], {
      cwd: folder,
    }).catch((error: { stdout: string }) => error);
    expect(stdout).toBe('');
  });
});
