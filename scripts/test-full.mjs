// `npm run test:full`: what `npm test` does, with every test there is: the proofs, those of the scale-out store if its engines are
// installed, and the check of the package that npm would publish.
import './supported-node.mjs';
import { join } from 'node:path';
import { root, run } from './prepare.mjs';
import { runTests } from './run-tests.mjs';

await runTests({ checks: true, words: process.argv.slice(2) });
run(process.execPath, [join(root, 'scripts', 'check-package.mjs')]);
