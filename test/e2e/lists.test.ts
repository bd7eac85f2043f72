import { describe, expect, it } from 'vitest';
import { setTimeout as sleep } from 'node:timers/promises';
import { digestOf } from '../../src/core/digest.ts';
import { FiletrackerError } from '../../src/core/errors.ts';
import { parseFileName, type FileName } from '../../src/core/file-name.ts';
import { parseEntryLine } from '../../src/protocol/list-format.ts';
import { SenderSlots } from '../../src/store/sender-slots.ts';
import { silentObserver } from '../../src/server/observer.ts';
import { RawConnection, requestBytes } from '../support/raw-http.ts';
import { openTestServer, overridden, versionQuery, type TestServer } from '../support/test-server.ts';

async function filled(): Promise<TestServer> {
  const server = await openTestServer();
  for (const [name, version] of [
    ['/b/c', 10],
    ['/a', 20],
    ['/b-c', 30],
    ['/b/d/e', 40],
    ['/b/ż', 50],
  ] as const) {
    await server.put(name === '/b/ż' ? '/b/%C5%BC' : name, name, { version });
  }
  return server;
}

describe('GET /list', () => {
  it('of an empty store is empty', async () => {
    const server = await openTestServer();
    for (const target of ['/list', '/list/', '//list/']) {
      const answer = await server.request({ target });
      expect(answer).toMatchObject({ status: 200, text: '' });
      expect(answer.headers.get('content-type')).toBe('text/plain; charset=utf-8');
    }
  });

  it('gives names below the directory, relative to it, in byte order', async () => {
    const server = await filled();
    expect((await server.request({ target: '/list/' })).text).toBe('a\nb-c\nb/c\nb/d/e\nb/ż\n');
    for (const target of ['/list/b', '/list/b/', '//list/b', '/list/%62%2F']) {
      expect((await server.request({ target })).text).toBe('c\nd/e\nż\n');
    }
    expect((await server.request({ target: '/list/b/d' })).text).toBe('e\n');
  });

  it('takes versions up to and including the cutoff', async () => {
    const server = await filled();
    const cutoff = async (version: number, directory = ''): Promise<string> =>
      (await server.request({ target: `/list/${directory}?${versionQuery(version)}` })).text;
    expect(await cutoff(30)).toBe('a\nb-c\nb/c\n');
    expect(await cutoff(29)).toBe('a\nb/c\n');
    expect(await cutoff(9)).toBe('');
    expect(await cutoff(39, 'b/d')).toBe('');
  });

  it('lists versions of the future', async () => {
    const server = await openTestServer();
    await server.put('/a', 'x', { version: 253_402_300_799 });
    expect((await server.request({ target: '/list/' })).text).toBe('a\n');
  });

  it('pages through, after a line of the page before', async () => {
    const server = await filled();
    const seen: string[] = [];
    for (let after = ''; ; after = seen.at(-1) ?? '') {
      const query = after === '' ? '' : `&after=${encodeURIComponent(after)}`;
      const page = (await server.request({ target: `/list/b?limit=2${query}` })).text
        .split('\n')
        .slice(0, -1);
      if (page.length === 0) break;
      seen.push(...page);
    }
    expect(seen).toEqual(['c', 'd/e', 'ż']);
    expect((await server.request({ target: '/list/?after=%2Fb%2Fc&limit=1' })).text).toBe('b/d/e\n');
  });

  it('gives whole entries as JSON', async () => {
    const server = await filled();
    const headers = { Accept: 'application/x-ndjson' };
    const answer = await server.request({ target: '/list/b', headers });
    expect(answer.headers.get('content-type')).toBe('application/x-ndjson');
    const entries = answer.text
      .trimEnd()
      .split('\n')
      .map((line) => parseEntryLine(line));
    expect(entries.map(({ name, version }) => [name, version])).toEqual([
      ['/b/c', 10],
      ['/b/d/e', 40],
      ['/b/ż', 50],
    ]);
    expect(entries[2]).toMatchObject({ size: 5, digest: digestOf(Buffer.from('/b/ż')) });
  });

  it('answers HEAD without a body', async () => {
    const server = await filled();
    const connection = await RawConnection.open(server.port);
    expect((await connection.request({ method: 'HEAD', target: '/list/' })).status).toBe(200);
    expect((await connection.request({ target: '/healthz' })).text).toBe('ok\n');
  });

  it('takes no more from the store than its reader takes, and lets go of it with the connection', async () => {
    const sound = await openTestServer();
    const batch = Array.from({ length: 512 }, (_, index) => parseFileName(`/${'a'.repeat(100)}${index}`));
    let batches = 0;
    let released = false;
    async function* endless(): AsyncGenerator<readonly FileName[]> {
      try {
        for (;;) {
          batches += 1;
          yield batch;
          await sleep(0);
        }
      } finally {
        released = true;
      }
    }
    const { store } = sound;
    const server = await openTestServer({ store: overridden(store, { listNames: endless }) });
    const reader = await RawConnection.open(server.port);
    reader.pause();
    reader.send(requestBytes({ target: '/list/' }));
    let seen = -1;
    // The system's buffers fill first; then nothing moves any more.
    for (let still = 0; still < 5; still = batches === seen ? still + 1 : 0) {
      seen = batches;
      await sleep(50);
    }
    expect(batches).toBeGreaterThan(0);
    expect(batches * 512 * 105).toBeLessThan(32_000_000);
    reader.socket.destroy();
    await expect.poll(() => released).toBe(true);
  });

  it('bounds the lists that run at once, in text and in JSON, and those of one sender', async () => {
    async function* endless<Item>(batch: Item): AsyncGenerator<Item> {
      for (;;) yield await sleep(1, batch);
    }
    const name = parseFileName('/a');
    const sizes = { logicalSize: 0, storedSize: 0, encoding: 'identity' } as const;
    const entry = { name, version: 1, digest: digestOf(Buffer.alloc(0)), ...sizes };
    const { store } = await openTestServer();
    const lists = new SenderSlots({ what: 'lists', max: 3 });
    const server = await openTestServer({
      store: overridden(store, {
        listNames: () => endless([name]),
        listEntries: () => endless([entry]),
      }),
      lists,
    });
    const readers: RawConnection[] = [];
    for (const accept of ['text/plain', 'application/x-ndjson']) {
      const reader = await RawConnection.open(server.port);
      reader.send(requestBytes({ target: '/list/', headers: { Accept: accept } }));
      readers.push(reader);
      await expect.poll(() => lists.count).toBe(readers.length);
    }
    const refused = await server.request({ target: '/list/' });
    expect([refused.status, refused.headers.get('x-exception-code')]).toEqual([429, 'rate-limited']);
    expect((await server.request({ method: 'HEAD', target: '/list/' })).status).toBe(200);
    for (const reader of readers) reader.socket.destroy();
    await expect.poll(() => lists.count).toBe(0);
  });

  it.each(['text/plain', 'application/x-ndjson'])(
    'answers 503 where the catalog fails before the first name, and tells so (%s)',
    async (accept) => {
      const { store } = await openTestServer();
      async function* failing(): AsyncGenerator<never> {
        yield* await Promise.reject<never[]>(
          new FiletrackerError('unavailable', 'Cannot use the catalog: PostgreSQL cannot be reached'),
        );
      }
      const told: number[] = [];
      const server = await openTestServer({
        store: overridden(store, { listNames: failing, listEntries: failing }),
        observer: { ...silentObserver, answered: ({ status }) => void told.push(status) },
      });
      const answer = await server.request({ target: '/list/', headers: { Accept: accept } });
      expect(answer).toMatchObject({ status: 503, text: expect.stringMatching(/^Cannot use the catalog/) });
      expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0);
      await expect.poll(() => told).toEqual([503]);
    },
  );

  it('breaks an answer off where the catalog fails after its first names', async () => {
    const { store } = await openTestServer();
    async function* failing(): AsyncGenerator<readonly FileName[]> {
      yield [parseFileName('/a')];
      await sleep(0);
      throw new FiletrackerError('unavailable', 'Cannot use the catalog: PostgreSQL cannot be reached');
    }
    const server = await openTestServer({ store: overridden(store, { listNames: failing }) });
    await expect(server.request({ target: '/list/' })).rejects.toThrow();
  });
});
