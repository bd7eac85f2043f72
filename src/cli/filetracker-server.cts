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
/** What of `net.Server` is needed here; types of modules cannot be imported in this file. */
interface ListeningServer {
  on(event: string, listener: (socket: object) => void): void;
  listen(handle: object): void;
}

// In a takeover, the predecessor sends its listening sockets while this program is being loaded, and Node accepts connections
// on a socket as soon as it has arrived. They wait here, unread, until the supervisor takes them.
const { FILETRACKER_TAKEOVER: takeover, FILETRACKER_WORKER: worker } = process.env;
if (takeover !== undefined && worker === undefined && process.send !== undefined) {
  // As `InheritedSockets` of the supervisor says.
  const sockets: object[] = [];
  const { createServer } = require('node:net') as {
    readonly createServer: (options: object) => ListeningServer;
  };
  const inherited = { sockets, onSocket: () => undefined };
  Reflect.set(globalThis, Symbol.for('filetracker.inherited-sockets'), inherited);
  const take = (message: unknown, given: object | undefined): void => {
    const connections: object[] = [];
    const server = createServer({ pauseOnConnect: true, allowHalfOpen: true, noDelay: true });
    server.on('connection', (socket) => connections.push(socket));
    // That a connection is not accepted (EMFILE) is no end: Node tries again.
    server.on('error', () => undefined);
    if (given !== undefined) server.listen(given);
    const { more = 0 } = message as { readonly more?: number };
    sockets.push({ server: given === undefined ? undefined : server, connections, more });
    if (more === 0) process.off('message', take);
    inherited.onSocket();
  };
  process.on('message', take);
}
// Where not even the program can be loaded, as with too few descriptors (ulimit -n), no handler of its own is there yet.
import('./filetracker-server.ts').catch((error: unknown) => {
  const [line = ''] = String(error instanceof Error ? error.message : error).split('\n');
  process.stderr.write(`filetracker-server: Cannot load the program: ${line}\n`);
  process.exitCode = 1;
});
