// `npm test`: installs, builds, checks format, lint, imports and types, and runs the fast tests. With arguments, runs only
// the tests whose files match them, fast or not: `npm test -- dates`. `--no-checks` runs the fast tests alone.
import './supported-node.mjs';
import { runTests } from './run-tests.mjs';

const filters = process.argv.slice(2).filter((word) => word !== '--no-checks');
await runTests({
  withChecks: filters.length === 0 && !process.argv.includes('--no-checks'),
  // Tests wait now and then: on two cores, three workers take nine tenths of the time of two.
  words: filters.length === 0 ? ['--project', 'fast', '--project', 'isolated', '--maxWorkers=3'] : filters,
});
