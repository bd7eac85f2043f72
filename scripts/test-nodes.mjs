// `npm run test:nodes`: the tests on every supported version of Node.js, all of them on 20 and 24 and the fast ones on the
// others. Each version is installed by npm into a temporary folder. With arguments, runs only those: `npm run test:nodes -- 24`.
import './supported-node.mjs';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { run, root } from './prepare.mjs';

const supported = [
  { major: '20', version: '20.20.2', tier: 'full' },
  { major: '22', version: '22.23.3', tier: 'fast' },
  { major: '24', version: '24.21.0', tier: 'full' },
  { major: '26', version: '26.12.1', tier: 'fast' },
];

const stopSignals = ['SIGINT', 'SIGTERM', 'SIGHUP'];

/** Installs versions of Node; the package holds the program alone. */
function installNodes(folder, nodes) {
  writeFileSync(join(folder, 'package.json'), '{ "private": true }\n');
  const packages = nodes.map(
    ({ major, version }) => `node-${major}@npm:node-linux-${process.arch}@${version}`,
  );
  const flags = ['--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error'];
  run('npm', ['install', ...flags, ...packages], { cwd: folder, stdio: ['ignore', 2, 2] });
}

/** Runs the tests; gives how many passed and failed, of which there are none if they did not come to an end. */
async function runTests(folder, { major, tier }, flags) {
  const report = join(folder, `report-${major}.json`);
  const nodeFolder = join(folder, 'node_modules', `node-${major}`, 'bin');
  const script = join(root, 'scripts', tier === 'full' ? 'test-full.mjs' : 'test.mjs');
  const env = {
    ...process.env,
    PATH: `${nodeFolder}${delimiter}${process.env.PATH}`,
    FILETRACKER_TEST_REPORT: report,
  };
  const child = spawn(join(nodeFolder, 'node'), [script, ...flags], { cwd: root, env, stdio: 'inherit' });
  const stop = (signal) => {
    child.kill(signal);
    process.exit(1);
  };
  for (const signal of stopSignals) process.on(signal, stop);
  const [status] = await once(child, 'exit');
  for (const signal of stopSignals) process.off(signal, stop);
  try {
    const { numPassedTests: passed, numFailedTests: failed } = JSON.parse(readFileSync(report, 'utf8'));
    return { passed, failed, isWhole: status === 0 };
  } catch {
    return { passed: 0, failed: 0, isWhole: false };
  }
}

const wanted = process.argv.slice(2);
const nodes = supported.filter(({ major }) => wanted.length === 0 || wanted.includes(major));
const folder = mkdtempSync(join(tmpdir(), 'filetracker-nodes-'));
// Tests run some programs as another user.
chmodSync(folder, 0o755);
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
installNodes(folder, nodes);
const results = [];
for (const node of nodes) {
  console.log(`\nNode.js ${node.version}: ${node.tier} tests`);
  // Format, lint and types are the same with every version.
  const flags = results.length === 0 ? [] : ['--no-checks'];
  results.push({ node, ...(await runTests(folder, node, flags)) });
}
console.log('');
for (const { node, passed, failed, isWhole } of results) {
  const end = isWhole ? '' : ', ended with an error';
  console.log(`Node.js ${node.version}, ${node.tier} tests: ${passed} passed, ${failed} failed${end}`);
}
const sum = (key) => results.reduce((total, result) => total + result[key], 0);
// What ended with an error before or after its tests counts as one that failed.
const broken = results.filter(({ failed, isWhole }) => failed === 0 && !isWhole).length;
if (nodes.length === 0 || results.some(({ isWhole }) => !isWhole)) process.exitCode = 1;
console.log(`${sum('passed')} passed, ${sum('failed') + broken} failed`);
