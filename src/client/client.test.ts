import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { servedStore } from '../../test/support/client-server.ts';
import { temporaryFolder } from '../../test/support/temporary-folder.ts';
import { Client } from './client.ts';

test('an abort rejects every call with the code aborted, before it begins and while it reads files', async () => {
  const [{ url }, folder] = [await servedStore(), await temporaryFolder()];
  await using client = new Client({ remoteUrl: url, cacheDir: join(folder, 'cache'), cacheMinFree: 0 });
  const [path, target] = [join(folder, 'file'), join(folder, 'target')];
  writeFileSync(path, randomBytes(2_000_000));
  const { versionedName: name } = await client.putFile('/f', path);
  const listing = async (list: AsyncIterable<unknown>): Promise<void> => {
    for await (const _item of list);
  };
  const calls: readonly ((signal: AbortSignal) => Promise<unknown>)[] = [
    (signal) => client.getFile(name, target, { signal, verify: true }),
    (signal) => client.getStream(name, { signal, verify: true, serveFromCache: true }),
    (signal) => client.prefetch(name, { signal, verify: true }),
    (signal) => client.putFile('/g', path, { signal }),
    (signal) => client.deleteFile('/f', { signal }),
  ];
  for (const call of calls) {
    await expect(call(AbortSignal.abort())).rejects.toMatchObject({ code: 'aborted' });
    const stop = new AbortController();
    const begun = call(stop.signal);
    stop.abort();
    await expect(begun).rejects.toMatchObject({ code: 'aborted' });
  }
  const signal = AbortSignal.abort();
  for (const lookUp of [client.stat(name, { signal }), client.exists('/f', { signal })]) {
    await expect(lookUp).rejects.toMatchObject({ code: 'aborted' });
  }
  for (const list of [
    client.listLocalFiles({ signal }),
    client.listRemoteFiles({ signal }),
    client.listRemoteEntries({ signal }),
  ]) {
    await expect(listing(list)).rejects.toMatchObject({ code: 'aborted' });
  }
  expect(await client.exists('/f')).toBe(true);
});

test('an abort ends a list with the code aborted, also if all of it has arrived', async () => {
  const [{ url }, folder] = [await servedStore(), await temporaryFolder()];
  await using client = new Client({ remoteUrl: url, cacheDir: undefined });
  const path = join(folder, 'file');
  writeFileSync(path, 'x');
  for (let index = 0; index < 5; index += 1) await client.putFile(`/f${index}`, path);
  for (let abortAt = 1; abortAt <= 5; abortAt += 1) {
    const stop = new AbortController();
    let names = 0;
    const reading = (async () => {
      for await (const _name of client.listRemoteFiles({ signal: stop.signal })) {
        names += 1;
        if (names === abortAt) stop.abort();
      }
    })();
    await expect(reading).rejects.toMatchObject({ code: 'aborted' });
  }
  // The connections are in order.
  expect(await client.exists('/f0')).toBe(true);
});
