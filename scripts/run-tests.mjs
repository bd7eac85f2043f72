import { join } from 'node:path';
import { prepare, root, run, runTool } from './prepare.mjs';

/**
 * Installs, builds and runs tests. `checks` adds those of format, lint, imports, language, API reference, options in the docs, dead exports and
 * types; `words` go to vitest.
 */
export async function runTests({ checks, words }) {
  await prepare();
  if (checks) {
    runTool('prettier/bin/prettier.cjs', ['--check', '--log-level', 'warn', '.']);
    runTool('oxlint/bin/oxlint', ['--type-aware', '--deny-warnings']);
    run(process.execPath, [join(root, 'scripts', 'check-imports.mjs')]);
    run(process.execPath, [join(root, 'scripts', 'check-language.mjs')]);
    run(process.execPath, [join(root, 'scripts', 'api-reference.mjs'), '--check']);
    runTool('knip/bin/knip.js', ['--no-progress']);
    run(process.execPath, [join(root, 'scripts', 'options-docs.mjs'), '--check']);
    runTool('typescript/bin/tsc', ['--noEmit', '-p', 'tsconfig.json']);
  }
  runTool('vitest/vitest.mjs', ['run', ...words]);
}
