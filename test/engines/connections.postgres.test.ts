import { createServer } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { Connections } from '../../src/catalog/postgres/connections.ts';
import { postgresUrl } from '../support/engines.ts';
import { FaultProxy } from '../support/fault-proxy.ts';

async function open(url: string): Promise<Connections> {
  const timeouts = { connectTimeoutMs: 2_000, queryTimeoutMs: 7_000 };
  const connections = await Connections.create({ url, ...timeouts }, async () => undefined);
  onTestFinished(() => connections.close());
  return connections;
}

/** What a connection says of itself when it starts, and then finds nobody. */
async function startOf(use: (url: string) => Promise<unknown>): Promise<Record<string, string>> {
  let started: Buffer = Buffer.alloc(0);
  const server = createServer((socket) => {
    socket
      .on('error', () => undefined)
      .once('data', (bytes: Buffer) => {
        started = bytes;
        socket.destroy();
      });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  await expect(use(`postgres://someone@127.0.0.1:${port}/files`)).rejects.toMatchObject({
    code: 'unavailable',
  });
  // Its length and the version of the protocol, then names and values, each ended by a zero.
  const words = started.subarray(8).toString().split('\0');
  const pairs: [string, string][] = [];
  for (let at = 0; at + 1 < words.length && words[at] !== ''; at += 2) {
    pairs.push([words[at] ?? '', words[at + 1] ?? '']);
  }
  return Object.fromEntries(pairs);
}

const settings = {
  name: 'settings_of_test',
  text: `SELECT current_setting('statement_timeout') AS statement,
    current_setting('idle_in_transaction_session_timeout') AS pause`,
};

describe('Connections', () => {
  it('starts with nothing that PgBouncer refuses', async () => {
    const known = ['user', 'database', 'client_encoding', 'application_name'];
    const uses = [
      (connections: Connections) => connections.run(settings, []),
      (connections: Connections) => connections.runForList(settings, []),
    ];
    for (const use of uses) {
      const start = await startOf(async (url) => use(await open(url)));
      expect(start).toMatchObject({ user: 'someone', database: 'files' });
      expect(known).toEqual(expect.arrayContaining(Object.keys(start)));
    }
  });

  it('closes idle connections to a database that has gone silent', async () => {
    const proxy = await FaultProxy.open(postgresUrl());
    const connections = await open(`postgres://postgres@127.0.0.1:${proxy.port}/postgres`);
    await connections.run(settings, []);
    await connections.runForList(settings, []);
    const sockets = (): number =>
      process.getActiveResourcesInfo().filter((kind) => kind === 'TCPSocketWrap').length;
    const openBefore = sockets();
    proxy.set('silence');
    await connections.close();
    // A socket that stays open keeps the process alive.
    expect(sockets()).toBe(openBefore - 2);
  });

  it('lets the database end what takes too long, on every new connection', async () => {
    const connections = await open(postgresUrl());
    const both = [1, 2].map(() => connections.run(settings, []));
    for (const rows of await Promise.all(both)) expect(rows).toEqual([{ statement: '7s', pause: '1min' }]);
    expect(await connections.runForList(settings, [])).toEqual([{ statement: '7s', pause: '1min' }]);
    expect(connections.size).toBe(3);
  });
});

describe('lists', () => {
  it('take the connections that are there for them, and no more wait than a request may', async () => {
    const connections = await Connections.create(
      { url: postgresUrl(), listPoolSize: 1, connectTimeoutMs: 300 },
      async () => undefined,
    );
    onTestFinished(() => connections.close());
    const slow = { name: 'slow_of_test', text: 'SELECT pg_sleep(3)' };
    const held = connections.runForList(slow, []);
    await expect(connections.runForList(settings, [])).rejects.toMatchObject({
      code: 'unavailable',
      retryable: true,
    });
    // Look-ups and changes have connections of their own.
    expect(await connections.run(settings, [])).toHaveLength(1);
    await held;
    expect(await connections.runForList(settings, [])).toHaveLength(1);
  });
});
