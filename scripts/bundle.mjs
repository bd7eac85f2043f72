// Bundles each program's own code into one file, because a program that loads one file starts much faster
// than one that loads a hundred. Dependencies stay outside; what is imported lazily becomes a chunk.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { build, stop } from 'esbuild';

/** Programs that share no chunks with the others, so that what starts is one file and not a dozen small ones. */
const alone = ['filetracker'];

export async function bundlePrograms(root, programs) {
  const known = programs.filter((program) => existsSync(join(root, 'src', 'cli', `${program}.ts`)));
  const groups = [...alone.map((program) => [program]), known.filter((program) => !alone.includes(program))];
  for (const group of groups) {
    const entryPoints = group.filter((program) => known.includes(program));
    if (entryPoints.length > 0) await bundleGroup(root, entryPoints);
  }
  // Else its process stays for as long as the server that `npm start` runs.
  await stop();
}

async function bundleGroup(root, programs) {
  await build({
    entryPoints: programs.map((program) => join(root, 'src', 'cli', `${program}.ts`)),
    outdir: join(root, 'dist', 'cli'),
    allowOverwrite: true,
    bundle: true,
    splitting: true,
    chunkNames: programs.length === 1 ? `chunks/${programs[0]}-[name]-[hash]` : 'chunks/[name]-[hash]',
    format: 'esm',
    platform: 'node',
    target: 'node20.19',
    packages: 'external',
    logLevel: 'warning',
  });
}
