import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { Client } from '../../src/client/client.ts';
import { FiletrackerError } from '../../src/core/errors.ts';
import { pause } from '../../src/core/timers.ts';
import type { FileStore } from '../../src/store/file-store.ts';
import { openTestServer, overridden } from '../support/test-server.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { statOf } from '../support/file-stores.ts';

/** A client of a server whose first PUT is followed by `meanwhile`, and is then answered with 503. */
async function repeating(
  meanwhile: (store: FileStore, put: () => Promise<unknown>) => Promise<unknown>,
): Promise<{ readonly client: Client; readonly path: string; readonly inner: FileStore }> {
  const { store: inner } = await openTestServer();
  let puts = 0;
  const store = overridden(inner, {
    put: async (intent, body, options) => {
      puts += 1;
      if (puts > 1) return inner.put(intent, body, options);
      await meanwhile(inner, () => inner.put(intent, body, options));
      throw new FiletrackerError('unavailable', 'Cannot store the file: the answer is lost');
    },
  });
  const { port } = await openTestServer({ store });
  const folder = await temporaryFolder();
  const path = join(folder, 'local');
  writeFileSync(path, 'content');
  const retries = { retriesMax: 3, firstPauseMs: 5, longestPauseMs: 20 };
  const client = new Client({ remoteUrl: `http://127.0.0.1:${port}`, retries });
  onTestFinished(() => client.close());
  return { client, path, inner };
}

const name = '/a' as never;

test('a put that is repeated by itself does not bring back what another client removed meanwhile', async () => {
  const { client, path, inner } = await repeating(async (store, put) => {
    await put();
    // The server dates the first try by the age that the repeat names, so it is late by the time that the repeat travels.
    await pause(3_000);
    await store.remove({ name, version: 10 });
  });
  await expect(client.putFile('/a@10', path)).rejects.toMatchObject({
    code: 'removed',
    details: { name: '/a', version: 10 },
    message: expect.stringMatching(/version 10 was removed by another client .*; put it again to store it$/),
  });
  expect(await statOf(inner, name)).toBeUndefined();
  // A new request of a user counts, whatever was removed.
  expect(await client.putFile('/a@10', path)).toMatchObject({ stored: true, version: 10 });
});

test('a put that is repeated by itself is stored if the removal was made before it was first sent', async () => {
  const { client, path, inner } = await repeating(async () => undefined);
  await inner.put({ name, version: 12, claims: {} }, { source: Buffer.from('x'), encoding: 'identity' });
  await inner.remove({ name, version: 12 });
  // A time stamp of a millisecond does not tell the removal from a request in the same one.
  const removedMs = Date.now();
  await expect.poll(() => Date.now(), { interval: 1 }).toBeGreaterThan(removedMs + 1);
  expect(await client.putFile('/a@10', path)).toMatchObject({ stored: true, version: 10 });
  expect((await statOf(inner, name))?.version).toBe(10);
});
