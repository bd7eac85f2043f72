// `npm test`: installs, builds, checks format, lint and types, and runs the fast tests. With arguments, runs only the
// tests whose files match them, fast or not: `npm test -- dates`.
import './supported-node.mjs';
import { runTests } from './run-tests.mjs';

const filters = process.argv.slice(2);
await runTests({
  checks: filters.length === 0,
  words: filters.length === 0 ? ['--project', 'fast'] : filters,
});
