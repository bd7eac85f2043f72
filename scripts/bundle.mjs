// Bundles each program's own code into one file, because a program that loads one file starts much faster
// than one that loads a hundred. Dependencies stay outside; what is imported lazily becomes a chunk.
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { build, stop } from 'esbuild';

/** Started once for each file, so that its start-up counts most. */
const client = 'filetracker';

const common = {
  allowOverwrite: true,
  bundle: true,
  platform: 'node',
  packages: 'external',
  logLevel: 'warning',
};
const target = 'node20.19';

export async function bundlePrograms(root, programs) {
  const known = programs.filter((program) => existsSync(join(root, 'src', 'cli', `${program}.ts`)));
  const modules = known.filter((program) => program !== client);
  if (modules.length > 0) await bundleModules(root, modules);
  if (known.includes(client)) await bundleClient(root);
  // Else its process stays for as long as the server that `npm start` runs.
  await stop();
}

async function bundleModules(root, programs) {
  await build({
    ...common,
    entryPoints: programs.map((program) => join(root, 'src', 'cli', `${program}.ts`)),
    outdir: join(root, 'dist', 'cli'),
    splitting: true,
    chunkNames: 'chunks/[name]-[hash]',
    format: 'esm',
    target,
  });
}

/**
 * The client is CommonJS: Node reads an ES module asynchronously, and for that loads parts of itself that nothing else here
 * needs. Each part that the program imports lazily is a bundle that shares no code with the others, and a run uses one part
 * after the other: esbuild would wrap shared code in functions, which V8 then reads twice.
 */
async function bundleClient(root) {
  const folder = join(root, 'src', 'cli');
  const parts = new Set();
  const commonJs = { ...common, format: 'cjs', supported: { 'dynamic-import': false } };
  await build({
    ...commonJs,
    entryPoints: [join(folder, `${client}.ts`)],
    outfile: join(root, 'dist', 'cli', `${client}.cjs`),
    // Before all else, and in the syntax of old versions: it refuses them.
    inject: [join(root, 'scripts', 'supported-node.mjs')],
    target: 'node12.22',
    plugins: [{ name: 'parts', setup: (builder) => builder.onResolve({ filter: /^\.\// }, partOf(parts)) }],
  });
  for (const part of parts) {
    const outfile = join(root, 'dist', 'cli', outputOf(part));
    await build({ ...commonJs, entryPoints: [join(folder, part)], outfile, target });
  }
}

function outputOf(part) {
  return `./chunks/${client}-${basename(part, '.ts')}.cjs`;
}

/** Leaves what is imported lazily out of the bundle, and collects it. */
function partOf(parts) {
  return ({ kind, path }) => {
    if (kind !== 'dynamic-import') return undefined;
    parts.add(path);
    return { path: outputOf(path), external: true };
  };
}
