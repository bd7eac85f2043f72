import { readFile, truncate, writeFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { beforeEach, describe, expect, it } from 'vitest';
import { ManualClock } from '../support/manual-clock.ts';
import { digestOf } from '../../src/core/digest.ts';
import { parseFileName } from '../../src/core/file-name.ts';
import {
  damagedBlobsOf,
  lastFinishedMs,
  Verification,
  type VerificationOptions,
} from '../../src/store/verification.ts';
import { openTestServer } from '../support/test-server.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { noise, prose } from '../support/contents.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

let folder: string;

beforeEach(async () => {
  folder = await temporaryFolder();
});

function verificationOf(store: EmbeddedStore, options: Partial<VerificationOptions> = {}): Verification {
  const { catalog, blobs } = store;
  const reportProblem = (problem: string, error: unknown): void => console.error(problem, error);
  return new Verification({ folder, catalog, blobs, bytesPerSecond: 2 ** 30, reportProblem, ...options });
}

const blobPath = (bytes: Buffer): string => {
  const digest = digestOf(bytes);
  return join(folder, 'blobs', digest.slice(0, 2), `${digest}.gz`);
};

describe('Verification', () => {
  it('marks damaged blobs, and unmarks those that are intact again', async () => {
    await using store = await EmbeddedStore.open(folder);
    const good = noise(20_000, 'good');
    const flipped = noise(20_000, 'flipped');
    const cut = noise(20_000, 'cut');
    await store.put('/good', 1, good);
    await store.put('/flipped', 1, flipped);
    await store.put('/cut', 1, cut);
    await store.put('/small', 1, prose(100));
    const bytes = await readFile(blobPath(flipped));
    const bad = Buffer.from(bytes);
    bad[9000] = (bad[9000] ?? 0) ^ 1;
    await writeFile(blobPath(flipped), bad);
    await truncate(blobPath(cut), 5000);
    await using verification = new Closing(verificationOf(store));
    expect(await verification.verification.status()).toBeUndefined();
    const first = await verification.run();
    expect(first).toMatchObject({ state: 'finished', checkedBlobs: 4, totalBlobs: 4, damagedBlobs: 2 });
    expect(first.foundDamaged.toSorted()).toEqual([digestOf(flipped), digestOf(cut)].toSorted());
    expect(await store.read('/flipped')).toBe('damaged');
    expect(await store.read('/good')).toEqual(good);
    await writeFile(blobPath(flipped), bytes);
    expect(await verification.run()).toMatchObject({ damagedBlobs: 1, mendedBlobs: 1, foundDamaged: [] });
    expect(await store.read('/flipped')).toEqual(flipped);
  });

  it('corrects a size that was assumed, and reports orphans, which stay', async () => {
    await using store = await EmbeddedStore.open(folder);
    const bytes = noise(20_000);
    await store.put('/file', 1, bytes);
    const found = await store.catalog.findBlob(digestOf(bytes));
    const { digest, encoding, storedSize } = found ?? expect.unreachable();
    await store.catalog.addBlobs([{ digest, encoding, storedSize, logicalSize: 5, key: `${digest}.gz` }]);
    const stray = noise(300, 'stray');
    await mkdir(join(blobPath(stray), '..'), { recursive: true });
    await writeFile(blobPath(stray), gzipSync(stray));
    const clock = new ManualClock(Date.now() + 2 * 3_600_000);
    await using verification = new Closing(verificationOf(store, { clock }));
    expect(await verification.run()).toMatchObject({ resizedBlobs: 1, strays: 1, damagedBlobs: 0 });
    expect((await store.catalog.find(parseFileName('/file')))?.entry.logicalSize).toBe(20_000);
    expect(await store.read('/file')).toEqual(bytes);
    expect(gunzipSync(await readFile(blobPath(stray)))).toEqual(stray);
  });

  it('resumes where it was stopped, and allows one run at a time', async () => {
    await using store = await EmbeddedStore.open(folder);
    for (let index = 0; index < 1200; index += 1) void store.put(`/${index}`, 1, prose(40, `${index}`));
    await store.put('/last', 1, prose(40));
    const slow = verificationOf(store, { bytesPerSecond: 20_000_000 });
    expect(await slow.start()).toBe(true);
    expect(await slow.start()).toBe(false);
    await using other = new Closing(verificationOf(store));
    expect(await other.verification.start()).toBe(false);
    expect(await other.verification.status()).toMatchObject({ state: 'running' });
    await slow.stop();
    expect(await other.verification.status()).toMatchObject({ state: 'interrupted' });
    expect(await other.run()).toMatchObject({ state: 'finished', totalBlobs: 1201, damagedBlobs: 0 });
  });
});

describe('Verification.recorded()', () => {
  it('reports how the last run ended, and its counts, while the next one is under way', async () => {
    await using store = await EmbeddedStore.open(folder);
    const bytes = noise(20_000, 'cut');
    await store.put('/cut', 1, bytes);
    await store.put('/small', 1, prose(100));
    const sound = await readFile(blobPath(bytes));
    await truncate(blobPath(bytes), 5000);
    const counted = { bytes: 0, blobs: 0, damaged: 0 };
    const counters = {
      read: (sizeBytes: number) => void (counted.bytes += sizeBytes),
      checked: () => void (counted.blobs += 1),
      foundDamaged: () => void (counted.damaged += 1),
    };
    const clock = new ManualClock(5_000_000);
    await using first = new Closing(verificationOf(store, { clock, counters }));
    const { readBytes } = await first.run();
    expect(counted).toEqual({ bytes: readBytes, blobs: 2, damaged: 1 });
    expect(readBytes).toBeGreaterThan(5000);
    clock.advance(1000);
    await writeFile(blobPath(bytes), sound);
    const slow = verificationOf(store, { clock, bytesPerSecond: 1 });
    await slow.start();
    const during = (await slow.recorded()) ?? expect.unreachable();
    expect(during).toMatchObject({ state: 'running', damagedBlobs: 0 });
    expect([damagedBlobsOf(during), lastFinishedMs(during)]).toEqual([1, 5_000_000]);
    await slow.stop();
    await using last = new Closing(verificationOf(store, { clock, counters }));
    const after = await last.run();
    expect([damagedBlobsOf(after), lastFinishedMs(after)]).toEqual([0, 5_001_000]);
    expect(counted).toMatchObject({ blobs: 4, damaged: 1 });
  });
});

describe('POST /admin/verify', () => {
  it('begins a run, and GET /status reports it', async () => {
    const status = { state: 'finished', checkedBlobs: 3 };
    let runs = 0;
    const verification = {
      start: async () => {
        runs += 1;
        return runs === 1;
      },
      status: async () => status,
    };
    const server = await openTestServer({ verification });
    const answer = await server.request({ method: 'POST', target: '/admin/verify' });
    expect([answer.status, JSON.parse(answer.body.toString())]).toEqual([202, { verification: 'started' }]);
    expect((await server.request({ method: 'POST', target: '/admin/verify' })).status).toBe(200);
    expect((await server.request({ method: 'GET', target: '/admin/verify' })).status).toBe(405);
    expect((await server.request({ method: 'POST', target: '/admin/other' })).status).toBe(404);
    const told = await server.request({ method: 'GET', target: '/status' });
    expect(JSON.parse(told.body.toString())).toMatchObject({ verification: status });
  });
});

/** Runs a verification to its end, and stops it when the test is over. */
class Closing implements AsyncDisposable {
  readonly verification: Verification;

  constructor(verification: Verification) {
    this.verification = verification;
  }

  async run(): Promise<NonNullable<Awaited<ReturnType<Verification['status']>>>> {
    expect(await this.verification.start()).toBe(true);
    await this.verification.idle();
    return (await this.verification.status()) ?? expect.unreachable();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.verification.stop();
  }
}
