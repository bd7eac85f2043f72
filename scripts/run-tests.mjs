import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { prepare, root, runTool } from './prepare.mjs';

/** Files that make a check faster the next time. They depend on the content of files alone. */
const caches = 'node_modules/.cache';
const scripts = 'scripts';
const tools = 'node_modules';

/** The longest first, so that the others run beside it. */
const checks = [
  {
    name: 'format',
    script: [tools, 'prettier/bin/prettier.cjs'],
    words: `--check --log-level warn --cache --cache-strategy content --cache-location ${caches}/format.json .`,
  },
  {
    name: 'types',
    script: [tools, 'typescript/bin/tsc'],
    words: `--noEmit -p tsconfig.json --incremental --tsBuildInfoFile ${caches}/types.tsbuildinfo`,
  },
  { name: 'lint', script: [tools, 'oxlint/bin/oxlint'], words: '--type-aware --deny-warnings' },
  { name: 'dead exports', script: [tools, 'knip/bin/knip.js'], words: '--no-progress' },
  { name: 'docs/API.md', script: [scripts, 'api-reference.mjs'], words: '--check' },
  { name: 'options in the docs', script: [scripts, 'options-docs.mjs'], words: '--check' },
  { name: 'imports', script: [scripts, 'check-imports.mjs'], words: '' },
  { name: 'language', script: [scripts, 'check-language.mjs'], words: '' },
];

/** Runs a check and prints its output at its end, so that checks that run side by side do not mix theirs. */
async function passes({ name, script, words }) {
  const child = spawn(process.execPath, [join(root, ...script), ...words.split(' ').filter(Boolean)], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  child.stdout.on('data', (text) => (output += text));
  child.stderr.on('data', (text) => (output += text));
  const [status] = await once(child, 'close');
  if (status !== 0) console.error(`Check of ${name} failed:\n${output.trimEnd()}`);
  return status === 0;
}

/** Runs all checks, one per processor at a time. Ends this process if one of them fails. */
async function runChecks() {
  const waiting = [...checks];
  let failed = 0;
  const runner = async () => {
    for (let check = waiting.shift(); check !== undefined; check = waiting.shift()) {
      if (!(await passes(check))) failed += 1;
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, runner));
  if (failed > 0) process.exit(1);
  console.log(`Checks passed: ${checks.map(({ name }) => name).join(', ')}`);
}

/** Installs, builds and runs tests, after the checks if `withChecks`; `words` go to vitest. */
export async function runTests({ withChecks, words }) {
  await prepare();
  if (withChecks) await runChecks();
  runTool('vitest/vitest.mjs', ['run', ...words]);
}
