// `npm run bench`: builds, and measures in one run. With arguments, runs only the parts named:
// `npm run bench -- server client`.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { prepare, root, runTool } from './prepare.mjs';

await prepare();
const { build } = await import('esbuild');
const folder = join(root, 'node_modules', '.cache', 'filetracker-bench');
mkdirSync(folder, { recursive: true });
await build({
  entryPoints: [join(root, 'bench', 'main.ts')],
  outdir: folder,
  outExtension: { '.js': '.mjs' },
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node20.19',
  packages: 'external',
  logLevel: 'warning',
});
runTool('.cache/filetracker-bench/main.mjs', process.argv.slice(2), {
  env: { ...process.env, FILETRACKER_ROOT: root },
});
