// `npm test`: installs, builds, checks format, lint and types, and runs every test. With arguments, runs
// only the tests whose files match them: `npm test -- dates`.
import { prepare, runTool } from './prepare.mjs';

await prepare();
const filters = process.argv.slice(2);
if (filters.length === 0) {
  runTool('prettier/bin/prettier.cjs', ['--check', '--log-level', 'warn', '.']);
  runTool('oxlint/bin/oxlint', ['--type-aware', '--deny-warnings']);
  runTool('typescript/bin/tsc', ['--noEmit', '-p', 'tsconfig.json']);
}
runTool('vitest/vitest.mjs', ['run', ...filters]);
