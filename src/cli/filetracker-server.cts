#!/usr/bin/env node
// Starts filetracker-server with more threads for the file system than Node's four, so that a few slow syncs
// do not hold up every read. Node counts its threads when it first uses one, and loading an ES module does:
// so this must be a CommonJS file, and the program itself comes after it.
// Nor may it hold anything that an old Node cannot read: the launcher that it loads says which versions are supported.
if (process.env['UV_THREADPOOL_SIZE'] === undefined) process.env['UV_THREADPOOL_SIZE'] = '16';
// From here on, because these end a process that does not take them, and loading the program takes longer than this. What
// they ask for is done where they are taken later; there is nothing to do yet.
if (!['token', 'backup', 'restore', 'move', 'help'].includes(process.argv[2] || '')) {
  for (const signal of ['SIGHUP', 'SIGUSR2']) process.on(signal, () => undefined);
}
// Where not even the program can be loaded, as with too few descriptors (ulimit -n), no handler of its own is there yet.
import('./filetracker-server.ts').catch((error: unknown) => {
  const [line = ''] = String(error instanceof Error ? error.message : error).split('\n');
  process.stderr.write(`filetracker-server: Cannot load the program: ${line}\n`);
  process.exitCode = 1;
});
