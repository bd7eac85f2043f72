// `npm start`: a server on 127.0.0.1:9999 with a store under the user's data folder. Arguments after `--`
// go to filetracker-server.
import './supported-node.mjs';
import { spawn } from 'node:child_process';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { prepare, root } from './prepare.mjs';

await prepare();
const dataHome = process.env.XDG_DATA_HOME || join(homedir(), '.local', 'share');
const given = process.argv.slice(2);
const hasFolder = given.some((word) => /^(-d|--dir)/.test(word)) || process.env.FILETRACKER_DIR;
const folder = hasFolder ? [] : ['-d', join(dataHome, 'filetracker')];
const program = join(root, 'dist', 'cli', 'filetracker-server.cjs');
const server = spawn(process.execPath, [program, ...folder, ...given], { stdio: 'inherit' });
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR2'])
  process.on(signal, () => server.kill(signal));
server.on('exit', (code, signal) => process.exit(code ?? (signal ? 1 : 0)));
