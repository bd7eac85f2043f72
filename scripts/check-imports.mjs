// Checks which folder of src/ imports which. This table is the only statement of the rule; docs/ARCHITECTURE.md explains it.
// Type imports count too: a folder that needs another's types cannot be read without it.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** What may be imported by the two folders that put everything together. */
const belowRuntime =
  'core streams fs protocol access blobs catalog store client config telemetry maintenance'.split(' ');

/** What each folder may import besides itself. A path with a file name allows only that file. */
const allowed = {
  core: [],
  streams: ['core'],
  fs: ['core'],
  protocol: ['core'],
  blobs: ['core', 'streams', 'fs'],
  catalog: ['core', 'fs'],
  store: ['core', 'streams', 'fs', 'blobs/blob-store.ts', 'catalog/catalog.ts', 'catalog/decisions.ts'],
  access: ['core', 'fs', 'protocol', 'catalog/postgres'],
  server: ['core', 'streams', 'protocol', 'store', 'access'],
  client: ['core', 'streams', 'fs', 'protocol'],
  config: ['core', 'fs', 'access', 'blobs', 'catalog'],
  telemetry: ['core', 'protocol', 'access', 'catalog', 'config', 'store', 'server'],
  maintenance: ['core', 'streams', 'fs', 'access', 'blobs', 'catalog', 'store'],
  runtime: [...belowRuntime, 'server'],
  cli: [...belowRuntime, 'runtime'],
  'index.ts': ['core', 'client'],
};
const filesPerFolderMax = 16;

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const files = readdirSync(join(root, 'src'), { recursive: true, withFileTypes: true })
  .filter((item) => item.isFile() && item.name.endsWith('.ts') && !item.name.endsWith('.test.ts'))
  .map((item) => join(item.parentPath, item.name).slice(join(root, 'src/').length));
const imports = new Map(
  files.map((file) => {
    const text = readFileSync(join(root, 'src', file), 'utf8');
    const targets = [...text.matchAll(/(?:from|import\()\s*'(\.[^']+)'/g)].map(([, path]) =>
      join(dirname(file), path ?? ''),
    );
    return [file, targets];
  }),
);
const problems = [];
const layerOf = (file) => file.split('/')[0] ?? '';
for (const [file, targets] of imports) {
  for (const target of targets) {
    const rule = allowed[layerOf(file)];
    if (rule === undefined)
      problems.push(`src/${file}: "${layerOf(file)}" is not in the table of scripts/check-imports.mjs`);
    else if (
      layerOf(file) !== layerOf(target) &&
      !rule.some((path) => target === path || target.startsWith(`${path}/`))
    )
      problems.push(`src/${file} may not import src/${target}`);
  }
}

/** Depth first; a file that is met again while it is open closes a cycle. */
const done = new Set();
function visit(file, path) {
  if (path.includes(file)) problems.push(`cycle: ${[...path.slice(path.indexOf(file)), file].join(' → ')}`);
  if (done.has(file) || path.includes(file)) return;
  for (const target of imports.get(file) ?? []) visit(target, [...path, file]);
  done.add(file);
}
for (const file of files) visit(file, []);

const perFolder =
  Map.groupBy?.(files, dirname) ??
  files.reduce((map, file) => map.set(dirname(file), [...(map.get(dirname(file)) ?? []), file]), new Map());
for (const [folder, own] of perFolder) {
  if (own.length > filesPerFolderMax)
    problems.push(`src/${folder} has ${own.length} files; at most ${filesPerFolderMax} keep it readable`);
}
for (const problem of new Set(problems)) console.error(problem);
if (problems.length > 0) process.exit(1);
