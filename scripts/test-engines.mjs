// `npm run test:engines`: the tests of the scale-out store, against a real PostgreSQL and a real S3 server.
// Installs what is missing (Debian, as root). With arguments, runs only the test files that match them.
import { prepare, run, runTool } from './prepare.mjs';

await prepare();
run('bash', ['scripts/engines/install.sh']);
const env = { ...process.env, FILETRACKER_ENGINES: 'required' };
runTool('vitest/vitest.mjs', ['run', '--project', 'engines', ...process.argv.slice(2)], { env });
