// `npm run test:package`: packs the project as `npm publish` would and checks the tarball: its manifest (publint), its types
// (are-the-types-wrong), and that it installs into an empty project, where its programs start and its exports load. Dependencies come
// from the registry that npm is configured for.
import './supported-node.mjs';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { prepare, root, run, runTool } from './prepare.mjs';

await prepare();
const folder = mkdtempSync(join(tmpdir(), 'filetracker-package-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const { bin, name, version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const quiet = { stdio: ['ignore', 'ignore', 'inherit'] };

run('npm', ['pack', '--ignore-scripts', '--loglevel=error', '--pack-destination', folder], quiet);
const tarball = join(folder, `${name}-${version}.tgz`);
runTool('publint/src/cli.js', ['run', tarball, '--strict']);
runTool('@arethetypeswrong/cli/dist/index.js', [tarball, '--profile', 'esm-only', '--quiet']);

const project = join(folder, 'project');
mkdirSync(project);
writeFileSync(join(project, 'package.json'), '{ "private": true, "type": "module" }\n');
const installFlags = ['--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error'];
run('npm', ['install', ...installFlags, tarball], { cwd: project, ...quiet });

/** Runs a command in the project; returns what it printed. */
function printed(command, args) {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: project, encoding: 'utf8' });
  if (status === 0) return stdout;
  console.error(
    `Cannot run "${[command, ...args].join(' ')}" from the package: exit code ${status}\n${stderr}`,
  );
  return process.exit(1);
}

for (const program of Object.keys(bin)) {
  const help = printed('npx', ['--no-install', program, '--help']);
  if (help.startsWith(`Usage: ${program}`)) continue;
  console.error(`"npx ${program} --help" does not print its usage:\n${help}`);
  process.exit(1);
}
const use = `import { MemoryClient } from '${name}';
const client = new MemoryClient();
await client.putFile('/package.json', 'package.json');
console.log(await client.exists('/package.json'));`;
if (printed(process.execPath, ['--input-type=module', '--eval', use]).trim() !== 'true') process.exit(1);
console.log(`The package ${name} ${version} installs, starts and loads.`);
