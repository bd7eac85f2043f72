import { createServer, type Socket } from 'node:net';
import { expect, it, onTestFinished } from 'vitest';
import { Connections } from './connections.ts';

/** What a database says that lets anybody in and is ready: AuthenticationOk, ReadyForQuery. */
const ready = Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 0, 0x5a, 0, 0, 0, 5, 0x49]);

/** Why a call failed, as it is counted, at a server that does so with each connection. */
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

it('counts a database that lets nobody in, hangs up, or does not answer, each as what it is', async () => {
  expect(await countedFailure(() => undefined)).toBe('unavailable');
  expect(await countedFailure((socket) => socket.destroy())).toBe('unavailable');
  expect(await countedFailure((socket) => socket.once('data', () => socket.write(ready)))).toBe('timeout');
});
