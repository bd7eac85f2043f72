import { Readable } from 'node:stream';
import { describe, expect, it, onTestFinished } from 'vitest';
import { systemClock } from '../core/clock.ts';
import { ManualClock } from '../../test/support/manual-clock.ts';
import { parseFileName } from '../core/file-name.ts';
import type { FileStore, PutIntent, PutResult } from './file-store.ts';
import { LimitedFileStore } from './limited-file-store.ts';

const intent: PutIntent = { name: parseFileName('/a'), version: 1, claims: {} };
const body = { source: Buffer.alloc(10), encoding: 'identity' } as const;
const stored: PutResult = { version: 1, stored: true, deduplicated: false };

/** A store whose puts end when they are told to. */
function openLimited(limits: { uploadsMax?: number; freeSpaceMinBytes?: number }, free: () => number) {
  const running: ((result: PutResult) => void)[] = [];
  const below = {
    put: () => new Promise<PutResult>((resolve) => running.push(resolve)),
  } as unknown as FileStore;
  const clock = new ManualClock();
  let questions = 0;
  const store = new LimitedFileStore(below, {
    limits: { uploadsMax: 100, listsMax: 100, freeSpaceMinBytes: 0, ...limits },
    freeSpace: () => {
      questions += 1;
      return Promise.resolve(free());
    },
    clock,
  });
  onTestFinished(() => running.forEach((end) => end(stored)));
  return { store, clock, end: () => running.shift()?.(stored), questions: () => questions };
}

describe('LimitedFileStore.put()', () => {
  it('takes so many at once, and more when one has ended', async () => {
    const { store, end } = openLimited({ uploadsMax: 2 }, () => 1000);
    const first = store.put(intent, body);
    void store.put(intent, body);
    await expect.poll(() => store.uploadCount).toBe(2);
    await expect(store.put(intent, body)).rejects.toMatchObject({ code: 'busy', retryable: true });
    end();
    await first;
    void store.put(intent, body);
    expect(store.uploadCount).toBe(2);
  });

  it('keeps the floor of the free space, with what is under way counted', async () => {
    const { store, clock } = openLimited({ freeSpaceMinBytes: 100 }, () => 125);
    void store.put(intent, body);
    await expect.poll(() => store.uploadCount).toBe(1);
    void store.put(intent, body);
    await expect(store.put(intent, body)).rejects.toMatchObject({ code: 'no-space' });
    clock.advance(5000);
    await expect(store.put(intent, body)).rejects.toMatchObject({ code: 'no-space' });
  });

  it('counts those that come together while it asks for the free space', async () => {
    const { store } = openLimited({ uploadsMax: 3, freeSpaceMinBytes: 100 }, () => 125);
    const codes = await Promise.all(
      [1, 2, 3, 4].map(() => {
        const put = store.put(intent, body).then(() => 'stored');
        const refused = put.catch((error: unknown) => (error as { code: string }).code);
        return Promise.race([refused, new Promise((resolve) => setTimeout(resolve, 50, 'taken'))]);
      }),
    );
    expect(codes).toEqual(['taken', 'taken', 'no-space', 'busy']);
  });

  it('gives up bodies of unknown size when the floor is reached, and no others', async () => {
    let freeBytes = 1000;
    const signals: AbortSignal[] = [];
    const below = {
      put: (_intent: PutIntent, _body: unknown, { signal }: { signal?: AbortSignal }) =>
        new Promise<PutResult>((resolve, reject) => {
          if (signal === undefined) setTimeout(resolve, 2500, stored);
          else signals.push(signal);
          signal?.addEventListener('abort', () => reject(new Error('aborted')));
        }),
    } as unknown as FileStore;
    const store = new LimitedFileStore(below, {
      limits: { uploadsMax: 100, listsMax: 100, freeSpaceMinBytes: 100 },
      freeSpace: () => Promise.resolve(freeBytes),
      clock: systemClock,
    });
    const source = Readable.from([]);
    const announced = store.put(intent, { source, encoding: 'identity', announcedSize: 10 });
    const interruption = new AbortController();
    const unknown = [
      store.put(intent, { source, encoding: 'identity' }, { signal: interruption.signal }),
      store.put(intent, { source, encoding: 'gzip' }),
    ];
    const refused = unknown.map((put) => expect(put).rejects.toMatchObject({ code: 'no-space' }));
    await expect.poll(() => signals.length).toBe(2);
    freeBytes = 99;
    await Promise.all(refused);
    expect(interruption.signal.aborted).toBe(false);
    await expect(announced).resolves.toEqual(stored);
    await expect(store.put(intent, body)).rejects.toMatchObject({ code: 'no-space' });
  });

  it('bounds the lists that run at once, and those of one sender', async () => {
    async function* endless(): AsyncGenerator<readonly string[]> {
      for (;;) yield Promise.resolve([]);
    }
    const below = { listNames: endless, listEntries: endless } as unknown as FileStore;
    const store = new LimitedFileStore(below, {
      limits: { uploadsMax: 1, listsMax: 4, freeSpaceMinBytes: 0 },
      freeSpace: () => Promise.resolve(1000),
      clock: systemClock,
    });
    const held: AsyncIterator<unknown>[] = [];
    const begin = async (sender: string): Promise<void> => {
      const list =
        held.length % 2 === 0 ? store.listNames('/', { sender }) : store.listEntries('/', { sender });
      const iterator = list[Symbol.asyncIterator]();
      await iterator.next();
      held.push(iterator);
    };
    await begin('one');
    await begin('one');
    await expect(begin('one')).rejects.toMatchObject({ code: 'rate-limited', retryable: true });
    await begin('two');
    await begin('three');
    await expect(begin('four')).rejects.toMatchObject({ code: 'busy', retryable: true });
    await held[0]?.return?.();
    expect(store.listCount).toBe(3);
    await begin('four');
    for (const iterator of held) await iterator.return?.();
    expect(store.listCount).toBe(0);
  });

  it('asks for the free space at most once a second', async () => {
    const { store, clock, questions } = openLimited({}, () => 1000);
    void store.put(intent, body);
    await expect.poll(() => store.uploadCount).toBe(1);
    void store.put(intent, body);
    expect(questions()).toBe(1);
    clock.advance(1000);
    void store.put(intent, body);
    await expect.poll(() => store.uploadCount).toBe(3);
    expect(questions()).toBe(2);
  });
});
