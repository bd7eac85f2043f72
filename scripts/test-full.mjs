// `npm run test:full`: what `npm test` does, with every test there is: the proofs, and those of the scale-out store if
// its engines are installed.
import './supported-node.mjs';
import { runTests } from './run-tests.mjs';

await runTests({ checks: true, words: process.argv.slice(2) });
