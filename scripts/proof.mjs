// `npm run test:proof`: the full crash, fault and model tests, about a quarter of an hour, and a table of what was
// tried at the end. A seed repeats a run: `npm run test:proof -- --seed 42`; a word picks test files:
// `npm run test:proof -- power`.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { prepare, root, runTool } from './prepare.mjs';

const words = process.argv.slice(2);
const seedAt = words.indexOf('--seed');
const seed = seedAt === -1 ? String(Date.now() % 1_000_000) : words.splice(seedAt, 2)[1];

await prepare();
console.log(`Proof, seed ${seed}. To repeat this run: npm run test:proof -- --seed ${seed}`);
const folder = mkdtempSync(join(tmpdir(), 'filetracker-proof-'));
const report = join(folder, 'report');
writeFileSync(report, '');
process.env.FILETRACKER_PROOF = 'full';
process.env.FILETRACKER_PROOF_SEED = seed;
process.env.FILETRACKER_PROOF_REPORT = report;

function printReport() {
  const lines = readFileSync(report, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
  console.log(`\nSeed ${seed}, Node ${process.version}, ${cpus().length} cores`);
  for (const { promise, figure } of lines.filter(({ promise }) => promise !== undefined)) {
    console.log(`${promise.padEnd(36)} ${figure}`);
  }
  const kills = lines.reduce((sum, line) => sum + (line.kills ?? 0), 0);
  console.log(`${'all kills'.padEnd(36)} ${kills}`);
  rmSync(folder, { recursive: true });
}

process.on('exit', printReport);
const filters = words.length > 0 ? words.map((word) => `test/proof/${word}`) : ['test/proof/'];
process.chdir(root);
runTool('vitest/vitest.mjs', ['run', '--testTimeout', '1800000', ...filters]);
