import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { freeBytes } from '../../src/fs/folders.ts';
import { contentOf } from '../support/proof/history.ts';
import { HttpStore } from '../support/proof/http-store.ts';
import { Random } from '../support/proof/random.ts';
import { faultKinds, RecorderControl, recorderMissing, type Fault } from '../support/proof/recorder.ts';
import { fullProof, proofSeed, reportFigure, scaled } from '../support/proof/scale.ts';
import { ServerLoad } from '../support/proof/server-load.ts';
import { ServerProgram } from '../support/proof/server-program.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const missing = recorderMissing();
if (missing !== undefined) console.warn(`Disk faults are not tested: ${missing}`);

const { write, sync, read, open, name, truncate, after } = faultKinds;
const ioError = 5;
const diskFull = 28;
const readOnly = 30;
const overQuota = 122;

interface Scenario {
  readonly what: string;
  readonly fault: Fault;
  /** What may be answered while it lasts, besides 200 and 404. */
  readonly answers: readonly number[];
}

const scenarios: readonly Scenario[] = [
  { what: 'a full disk', fault: { errno: diskFull, kinds: write | open | name }, answers: [507, 503] },
  { what: 'a full journal', fault: { errno: diskFull, kinds: write, pattern: '/journal/' }, answers: [507] },
  {
    what: 'no space for uploads',
    fault: { errno: diskFull, kinds: write, pattern: '/uploads/' },
    answers: [507],
  },
  {
    what: 'no space for the index',
    fault: { errno: diskFull, kinds: write, pattern: '/catalog/' },
    answers: [507, 503],
  },
  { what: 'a quota', fault: { errno: overQuota, kinds: write | open }, answers: [507, 503] },
  { what: 'write errors', fault: { errno: ioError, kinds: write }, answers: [500, 503] },
  { what: 'sync errors', fault: { errno: ioError, kinds: sync }, answers: [500, 503] },
  { what: 'errors of names', fault: { errno: ioError, kinds: name }, answers: [500, 503] },
  { what: 'errors of truncation', fault: { errno: ioError, kinds: truncate | write }, answers: [500, 503] },
  { what: 'read errors', fault: { errno: ioError, kinds: read }, answers: [500, 503] },
  {
    what: 'a file system gone read-only',
    fault: { errno: readOnly, kinds: write | open | name | truncate },
    answers: [503, 507],
  },
];

/** A server whose disk can be made to fail, and clients that change it. */
async function startServer(seed: string): Promise<{
  readonly store: HttpStore;
  readonly load: ServerLoad;
  readonly control: RecorderControl;
  readonly folder: string;
  readonly restart: () => Promise<ServerProgram>;
}> {
  const place = await temporaryFolder();
  const folder = join(place, 'store');
  const control = new RecorderControl(join(place, 'control'));
  const store = new HttpStore(0);
  onTestFinished(() => {
    store.close();
    control.close();
  });
  const restart = async (): Promise<ServerProgram> => {
    const server = await ServerProgram.start({
      folder,
      workers: 2,
      environment: control.environment(folder),
    });
    if (server === undefined) throw new Error('the server does not start');
    store.port = server.port;
    return server;
  };
  return { store, load: new ServerLoad(store, new Random(seed)), control, folder, restart };
}

async function loadFor(load: ServerLoad, timeMs: number): Promise<void> {
  await load.run(AbortSignal.timeout(timeMs), { pauseMs: 2 });
}

/** What the server's log says of requests that failed for a reason it does not know. */
function failuresIn(log: string): string {
  const lines = readFileSync(log, 'utf8').split('\n');
  return lines
    .filter((line) => line.includes('"status":500'))
    .slice(-2)
    .join('\n');
}

/** Waits until a small and a large file can be stored; fails after some seconds. */
async function expectService(store: HttpStore): Promise<void> {
  await expect
    .poll(
      async () => {
        // A worker may have ended of what has failed, and with it a connection.
        if ((await store.get('/').catch(() => undefined)) === undefined) return [];
        const small = await store.put('/service/small', 1, contentOf('100-service'));
        const large = await store.put('/service/large', 1, contentOf('90000-service'));
        const gone = [await store.remove('/service/small', 1), await store.remove('/service/large', 1)];
        return [small, large, ...gone].map((answer) => answer.status);
      },
      { timeout: 60_000, interval: 100 },
    )
    .toEqual([200, 200, 200, 200]);
}

describe.runIf(missing === undefined)(
  `disk faults, seed ${proofSeed}`,
  { timeout: scaled(120_000, 1_800_000) },
  () => {
    it('answers clearly, loses nothing, and goes on when the fault is gone', async () => {
      const { store, load, control, folder, restart } = await startServer(proofSeed);
      let server = await restart();
      const rounds = fullProof ? 5 : 1;
      const random = new Random(proofSeed);
      const tried = scenarios.filter(() => fullProof || random.chance(0.4));
      let refused = 0;
      for (let round = 0; round < rounds; round += 1) {
        for (const { what, fault, answers } of tried) {
          await loadFor(load, 100);
          expect([...load.refusals.keys()], `before ${what}`).toEqual([]);
          control.fail(fault);
          await loadFor(load, 250);
          const end = performance.now() + 10_000;
          while (control.matched === 0 && performance.now() < end) await loadFor(load, 250);
          control.heal();
          expect(control.matched, what).toBeGreaterThan(0);
          const unexpected = [...load.refusals.keys()].filter((status) => !answers.includes(status));
          if (unexpected.length > 0) console.log(failuresIn(`${folder}.log`));
          expect(
            unexpected.map((status) => load.refusalTexts.get(status)),
            what,
          ).toEqual([]);
          for (const count of load.refusals.values()) refused += count;
          load.refusals.clear();
          await expectService(store);
          await load.check();
          await server.kill();
          server = await restart();
          await load.check();
        }
      }
      const text = `${rounds * tried.length} times a disk that fails, ${refused} changes refused clearly; nothing lost`;
      reportFigure('disk faults', text);
    });

    it('loses nothing when one call fails, whichever it is', async () => {
      const { store, load, control, restart } = await startServer(`${proofSeed}-one`);
      let server = await restart();
      const random = new Random(proofSeed);
      const rounds = fullProof ? 100 : 6;
      for (let round = 0; round < rounds; round += 1) {
        const from = random.below(60);
        const to = from + 1 + random.below(3);
        const kinds = random.pick([write, sync, name, open, truncate, write | sync | truncate, write | name]);
        const fault = { errno: random.pick([ioError, diskFull]), kinds, from, to };
        control.fail(fault);
        await loadFor(load, 60);
        control.heal();
        const unexpected = [...load.refusals.keys()].filter((status) => ![500, 503, 507].includes(status));
        expect(unexpected, JSON.stringify(fault)).toEqual([]);
        load.refusals.clear();
        await expectService(store);
        if (random.chance(0.2)) {
          await server.kill();
          server = await restart();
        }
        await load.check().catch((error: unknown) => {
          throw new Error(`after ${JSON.stringify(fault)}, round ${round}`, { cause: error });
        });
      }
      reportFigure('single disk faults', `${rounds} rounds with one to three failing calls; nothing lost`);
    });

    it('keeps what the journal may name although its write has failed', async () => {
      const { store, load, control, restart } = await startServer(`${proofSeed}-after`);
      let server = await restart();
      for (let round = 0; round < (fullProof ? 20 : 2); round += 1) {
        await loadFor(load, 50);
        const path = `/after/${round}`;
        const content = contentOf(`50000-after${round}`);
        control.fail({ errno: ioError, kinds: write | truncate | after, pattern: '/journal/' });
        const refusal = await store.put(path, 1, content);
        expect(refusal.status).toBe(503);
        await server.kill();
        control.heal();
        server = await restart();
        const answer = await store.get(path);
        expect([200, 404]).toContain(answer.status);
        if (answer.status === 200) expect(answer.body.equals(content)).toBe(true);
        await store.remove(path, 1);
        await load.check();
      }
    });

    it('goes on when one write of the index has failed, whichever it is', async () => {
      const { store, load, control, restart } = await startServer(`${proofSeed}-index`);
      await restart();
      for (let from = 0; from < scaled(4, 12); from += 1) {
        control.fail({ errno: ioError, kinds: write, pattern: '/data.mdb', from, to: from + 1 });
        await loadFor(load, 150);
        control.heal();
        load.refusals.clear();
        await expectService(store);
        await load.check();
      }
    });

    it('collects nothing that a change names which the index could not take', async () => {
      const { store, control, restart } = await startServer(`${proofSeed}-named`);
      await restart();
      const random = new Random(`${proofSeed}-named`);
      const named: string[] = [];
      /** A content loses its only name and is named again at once, without being sent to the disk again. */
      const renameFor = async (client: number, signal: AbortSignal): Promise<void> => {
        for (let index = 0; !signal.aborted; index += 1) {
          const id = `${client}-${named.length}-${index}`;
          const content = contentOf(`40000-named${id}`);
          await store.put(`/first/${id}`, 1, content);
          await store.remove(`/first/${id}`, 1);
          await store.put(`/second/${id}`, 1, content);
          named.push(id);
        }
      };
      for (let round = 0; round < scaled(3, 30); round += 1) {
        const from = random.below(60);
        control.fail({ errno: ioError, kinds: write, pattern: '/data.mdb', from, to: from + 1 });
        const signal = AbortSignal.timeout(400);
        // A worker may end of what has failed, and with it a connection.
        await Promise.allSettled(Array.from({ length: 6 }, (_, client) => renameFor(client, signal)));
        control.heal();
        await expectService(store);
        for (const id of named.splice(0)) {
          const path = `/second/${id}`;
          const answer = await store.get(path).catch(() => store.get(path));
          expect([200, 404], answer.body.subarray(0, 200).toString()).toContain(answer.status);
        }
      }
    });

    it('refuses nothing on a slow disk', async () => {
      const { load, control, restart } = await startServer(`${proofSeed}-slow`);
      await restart();
      control.slowDown(20_000);
      await loadFor(load, 1000);
      control.slowDown(0);
      expect([...load.refusals.keys()]).toEqual([]);
      await load.check();
    });
  },
);

/** Whether this process may mount a small file system of its own. */
function mayMount(folder: string, sizeMib: number): boolean {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${sizeMib}m`, 'tmpfs', folder], { stdio: 'ignore' });
  } catch {
    return false;
  }
  onTestFinished(() => {
    execFileSync('umount', ['-l', folder]);
  });
  return true;
}

/** Fills the disk of a file to its last block with it. */
function fill(path: string): void {
  try {
    for (let sizeBytes = 1024 * 1024; ;) {
      try {
        writeFileSync(path, Buffer.alloc(sizeBytes), { flag: 'a' });
      } catch (error) {
        if (sizeBytes <= 4096) throw error;
        sizeBytes /= 2;
      }
    }
  } catch {
    // Full.
  }
}

/** Waits until the store in a folder keeps space for what makes room. */
async function expectReserve(folder: string): Promise<void> {
  const path = join(folder, 'catalog', 'reserve');
  const size = (): number | undefined => statSync(path, { throwIfNoEntry: false })?.size;
  await expect.poll(size, { timeout: 60_000 }).toBe(1024 * 1024);
}

describe('a full disk', { timeout: 300_000 }, () => {
  it('answers 507, serves what is there, and takes changes again when there is room', async ({ skip }) => {
    const place = await temporaryFolder();
    const folder = join(place, 'disk');
    mkdirSync(folder);
    skip(!mayMount(folder, 6), 'mounting a small file system needs the rights of root');
    const server = await ServerProgram.start({ folder: join(folder, 'store'), workers: 2 });
    const store = new HttpStore(server?.port ?? 0);
    onTestFinished(() => store.close());
    const stored: string[] = [];
    const refused: string[] = [];
    for (let index = 0; index < 120; index += 1) {
      const content = `${index % 3 === 0 ? 600_000 : 9000}-full${index}`;
      const answer = await store.put(`/f${index}`, 1, contentOf(content));
      if (answer.status === 200) stored.push(content);
      else refused.push(`${answer.status} ${answer.body.toString()}`);
    }
    expect(refused.length).toBeGreaterThan(0);
    expect(refused.filter((text) => !text.startsWith('507 '))).toEqual([]);
    for (const content of stored) {
      const answer = await store.get(`/f${content.split('full')[1]}`);
      expect(answer.body.equals(contentOf(content)), content).toBe(true);
    }
    execFileSync('mount', ['-o', 'remount,size=40m', folder]);
    await delay(100);
    await expectService(store);
    expect((await server?.stop())?.code).toBe(0);
  });

  it('makes nothing later that it has refused, and takes removals, which make room', async ({ skip }) => {
    const place = await temporaryFolder();
    const folder = join(place, 'disk');
    mkdirSync(folder);
    skip(!mayMount(folder, 12), 'mounting a small file system needs the rights of root');
    // One worker: it collects what it has removed, at once.
    const order = { folder: join(folder, 'store'), workers: 1 };
    let server = await ServerProgram.start(order);
    const store = new HttpStore(server?.port ?? 0);
    onTestFinished(() => store.close());
    const statusOf = async (path: string): Promise<number> => (await store.get(path)).status;
    expect((await store.put('/large', 1, contentOf('4000000-large'))).status).toBe(200);
    for (let index = 0; index < 20; index += 1) {
      expect((await store.put(`/f${index}`, 1, contentOf(`9000-f${index}`))).status).toBe(200);
    }
    // Space must be kept before others take all of it.
    await expectReserve(order.folder);
    fill(join(folder, 'filler'));

    const refused: string[] = [];
    for (let index = 0; index < 40; index += 1) {
      const path = `/tiny${index}`;
      const { status } = await store.put(path, 1, contentOf(`900-tiny${index}`));
      expect([200, 507]).toContain(status);
      if (status !== 200) refused.push(path);
    }
    expect(refused.length).toBeGreaterThan(0);
    expect(await Promise.all(refused.map(statusOf))).toEqual(refused.map(() => 404));

    for (const path of ['/f0', '/large', '/f1']) {
      expect((await store.remove(path, 1)).status).toBe(200);
      expect(await statusOf(path)).toBe(404);
    }
    await expect.poll(() => freeBytes(folder), { timeout: 60_000 }).toBeGreaterThan(2_500_000);
    await expectService(store);
    rmSync(join(folder, 'filler'));
    expect(await Promise.all(refused.map(statusOf))).toEqual(refused.map(() => 404));
    for (const restart of [() => server?.kill(), () => server?.stop()]) {
      await restart();
      server = await ServerProgram.start(order);
      store.port = server?.port ?? 0;
      expect(await Promise.all(refused.map(statusOf))).toEqual(refused.map(() => 404));
      expect(await statusOf('/large')).toBe(404);
      expect(await statusOf('/f2')).toBe(200);
    }
    expect((await server?.stop())?.code).toBe(0);
  });

  it('does not keep a server from starting, and from making room then', async ({ skip }) => {
    const folder = join(await temporaryFolder(), 'disk');
    mkdirSync(folder);
    skip(!mayMount(folder, 12), 'mounting a small file system needs the rights of root');
    const order = { folder: join(folder, 'store'), workers: 2 };
    let server = await ServerProgram.start(order);
    const store = new HttpStore(server?.port ?? 0);
    onTestFinished(() => store.close());
    expect((await store.put('/f', 1, contentOf('9000-f'))).status).toBe(200);
    await expectReserve(order.folder);
    await server?.kill();
    fill(join(folder, 'filler'));
    server = await ServerProgram.start(order);
    store.port = server?.port ?? 0;
    expect((await store.get('/f')).status).toBe(200);
    expect((await store.remove('/f', 1)).status).toBe(200);
    expect((await store.get('/f')).status).toBe(404);
    await server?.stop();
  });
});
