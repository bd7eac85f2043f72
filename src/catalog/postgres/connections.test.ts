import { createServer, type Socket } from 'node:net';
import { expect, it, onTestFinished } from 'vitest';
import { Connections } from './connections.ts';

/** The start of a session without a password: AuthenticationOk, ReadyForQuery. */
const ready = Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 0, 0x5a, 0, 0, 0, 5, 0x49]);

/** The failure that is counted for a call to a server that does this with each connection. */
async function countedFailure(serve: (socket: Socket) => void): Promise<string | undefined> {
  const server = createServer((socket) => serve(socket.on('error', () => undefined)));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  let counted: string | undefined;
  const connections = await Connections.create(
    {
      url: `postgres://someone@127.0.0.1:${port}/files`,
      connectTimeoutMs: 200,
      queryTimeoutMs: 400,
      onCall: (_operation, _durationMs, failure) => (counted = failure),
    },
    async () => undefined,
  );
  onTestFinished(() => connections.close());
  const statement = { name: 'filetracker_test', text: 'SELECT 1' };
  await expect(connections.run(statement, [])).rejects.toMatchObject({ code: 'unavailable' });
  return counted;
}

it('counts a database that refuses logins, hangs up, or stays silent under a failure of its own', async () => {
  expect(await countedFailure(() => undefined)).toBe('unavailable');
  expect(await countedFailure((socket) => socket.destroy())).toBe('unavailable');
  expect(await countedFailure((socket) => socket.once('data', () => socket.write(ready)))).toBe('timeout');
});
