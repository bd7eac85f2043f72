// `npm run test:full`: what `npm test` does, with every test there is: the slow ones, the proofs, and those of the
// scale-out store if its back ends are installed; and the check of the package that npm would publish. `--no-checks` runs
// the tests alone.
import './supported-node.mjs';
import { join } from 'node:path';
import { prepare, root, run } from './prepare.mjs';
import { runTests } from './run-tests.mjs';

const checks = !process.argv.includes('--no-checks');
const words = process.argv.slice(2).filter((word) => word !== '--no-checks');
const seed = (process.env.FILETRACKER_TEST_SEED ??= String(Date.now() % 1_000_000));
if (checks) {
  await prepare();
  run(process.execPath, [join(root, 'scripts', 'check-package.mjs')]);
}
console.log(`Seed of the properties: ${seed}. To repeat it: FILETRACKER_TEST_SEED=${seed} npm run test:full`);
// Slow tests wait more than they compute: on two cores, four workers take two thirds of the time of two.
await runTests({ withChecks: checks, words: ['--maxWorkers=4', ...words] });
