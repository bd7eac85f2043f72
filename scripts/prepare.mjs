// Makes the tree ready to run: installs the locked dependencies and builds dist/, each only when it is
// out of date. Uses nothing but Node and npm, because it runs before anything is installed.
import './supported-node.mjs';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
const programs = [
  'filetracker',
  'filetracker-server',
  'filetracker-migrate',
  'filetracker-recover',
  'filetracker-cache-cleaner',
];

/** Runs a command in the project's folder and ends this process with its exit code if it fails. */
export function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options });
  if (result.error) throw result.error;
  if (result.status !== 0) process.exit(result.status ?? 1);
}

/** Runs a program of a dependency with this same Node. */
export function runTool(script, args, options = {}) {
  run(process.execPath, [join(root, 'node_modules', script), ...args], options);
}

function* filesBelow(folder) {
  for (const item of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, item.name);
    if (item.isDirectory()) yield* filesBelow(path);
    else yield path;
  }
}

function fingerprint(paths) {
  // Native parts are built for Node-API, and so fit every version of Node.
  const hash = createHash('sha256').update(`${process.platform} ${process.arch}`);
  for (const path of paths.sort()) hash.update(path.slice(root.length)).update(readFileSync(path));
  return hash.digest('hex');
}

function upToDate(stamp, print) {
  return existsSync(stamp) && readFileSync(stamp, 'utf8') === print;
}

function install() {
  const stamp = join(root, 'node_modules', '.filetracker-installed');
  const print = fingerprint([join(root, 'package.json'), join(root, 'package-lock.json')]);
  if (upToDate(stamp, print)) return;
  console.error('Installing dependencies …');
  run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], { stdio: ['ignore', 2, 2] });
  writeFileSync(stamp, print);
}

async function build() {
  const stamp = join(root, 'dist', '.built');
  const inputs = ['package.json', 'package-lock.json', 'tsconfig.json', 'tsconfig.build.json'];
  const print = fingerprint([
    ...filesBelow(join(root, 'src')),
    ...filesBelow(join(root, 'scripts')),
    ...inputs.map((name) => join(root, name)),
  ]);
  if (upToDate(stamp, print)) return;
  console.error('Building …');
  rmSync(join(root, 'dist'), { recursive: true, force: true });
  mkdirSync(join(root, 'dist'));
  runTool('typescript/bin/tsc', ['-p', 'tsconfig.build.json'], { stdio: ['ignore', 2, 2] });
  const { bundlePrograms } = await import('./bundle.mjs');
  await bundlePrograms(root, programs);
  writeLaunchers(join(root, 'dist', 'cli'));
  for (const program of programs) {
    for (const extension of ['js', 'cjs']) {
      const path = join(root, 'dist', 'cli', `${program}.${extension}`);
      if (existsSync(path)) chmodSync(path, 0o755);
    }
  }
  writeFileSync(stamp, print);
}

/**
 * Puts a launcher in the place of each program, which checks the version of Node before it loads the program: an older one
 * fails at the first thing in it that it does not know.
 */
function writeLaunchers(folder) {
  copyFileSync(join(root, 'scripts', 'supported-node.mjs'), join(folder, 'supported-node.js'));
  for (const program of programs) {
    const path = join(folder, `${program}.js`);
    if (program === 'filetracker') {
      // The program is filetracker.cjs, which checks the version itself. This is its name of earlier releases.
      writeFileSync(path, `#!/usr/bin/env node\nimport './${program}.cjs';\n`);
      continue;
    }
    renameSync(path, join(folder, `${program}-program.js`));
    writeFileSync(
      path,
      `#!/usr/bin/env node\nimport './supported-node.js';\nimport('./${program}-program.js');\n`,
    );
  }
}

/** Installs and builds what is missing or out of date. */
export async function prepare() {
  install();
  await build();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await prepare();
