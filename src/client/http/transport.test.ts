import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, onTestFinished, test, vi } from 'vitest';
import { timerMaxMs } from '../../core/timers.ts';
import { Client } from '../client.ts';

test('A time-out longer than a timer of Node takes does not end a request at once', async () => {
  const server = createServer((_request, response) => {
    response.end(JSON.stringify({ protocol_versions: [2] }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  const delays: unknown[] = [];
  const started = setTimeout;
  vi.stubGlobal('setTimeout', (work: () => void, delayMs?: number) => {
    delays.push(delayMs);
    return started(work, delayMs);
  });
  onTestFinished(() => void vi.unstubAllGlobals());
  const remoteUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const client = new Client({ remoteUrl, connectTimeoutMs: 3e9, stallTimeoutMs: 3e9 });
  onTestFinished(() => client.close());
  expect((await client.remote?.abilities())?.protocolVersion).toBe(2);
  expect(delays.length).toBeGreaterThan(0);
  for (const delayMs of delays) expect(delayMs).toBeLessThanOrEqual(timerMaxMs);
});
