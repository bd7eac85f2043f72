import { expect, it } from 'vitest';
import { digestOf } from '../../src/core/digest.ts';
import { parseFileName } from '../../src/core/file-name.ts';
import { checkBlob } from '../../src/store/integrity.ts';
import { contentOf } from '../support/proof/history.ts';
import { requestOnce } from '../support/raw-http.ts';
import { sharedPlace, type RunningServer } from '../support/scale-out-servers.ts';
import { versionQuery } from '../support/test-server.ts';

const serverCount = 4;
const clientCount = 12;
const names = Array.from({ length: 8 }, (_, index) => `/hot/${index % 3}/file${index}`);
/** Few, so that every one is stored, forgotten, collected and stored again all the time; half of them large. */
const contents = ['300-a', '5000-b', '40000-c', '90000-d', '40000-e'].map((word) => contentOf(word));
const seconds = Number(process.env['FILETRACKER_ATTACK_SECONDS'] ?? 10);

/** A change that was asked for; versions are unique. */
interface Attempt {
  readonly name: string;
  /** Undefined for a removal. */
  readonly digest: string | undefined;
  acknowledged: boolean;
}

/**
 * Invariants 1, 3, 4 and 5 of the scale-out store: servers put, overwrite, remove and collect the same few contents
 * under the same few names, without a grace period, while one of them is killed every now and then.
 */
it(
  'keeps every acknowledged file, and every blob that an entry names, while servers die',
  { timeout: (seconds + 120) * 1000 },
  async () => {
    const place = await sharedPlace();
    const start = (): Promise<RunningServer> => place.server({ args: ['--gc-grace', '0'] });
    const servers = await Promise.all(Array.from({ length: serverCount }, start));
    const attempts = new Map<number, Attempt>();
    let version = 1_700_000_000;
    const state = { over: false };
    let changes = 0;
    let deaths = 0;
    const wrong: string[] = [];

    const change = async (random: number): Promise<void> => {
      const server = servers[random % serverCount];
      const name = names[(random >> 3) % names.length] ?? '';
      if (server === undefined) return;
      const target = `/files${name}?${versionQuery((version += 1))}`;
      const mine = version;
      const kind = (random >> 7) % 10;
      if (kind < 5 || (kind < 7 && !isLasting(name))) {
        const body = kind < 5 ? contents[(random >> 11) % contents.length] : undefined;
        const digest = body && digestOf(body);
        const attempt: Attempt = { name, digest, acknowledged: false };
        attempts.set(mine, attempt);
        const request = body === undefined ? { method: 'DELETE', target } : { method: 'PUT', target, body };
        const { status, body: text } = await requestOnce(server.port, request);
        attempt.acknowledged = status === 200;
        if (![200, 404, 503].includes(status)) wrong.push(`${name}: ${status} ${text.toString()}`);
      } else {
        const answer = await requestOnce(server.port, { method: 'GET', target: `/files${name}` });
        const { status, headers, body } = answer;
        if (status === 200 && headers.get('sha256-checksum') !== digestOf(body)) wrong.push(`${name}: torn`);
        if (status >= 500 && status !== 503) wrong.push(`${name}: ${status} ${body.toString()}`);
      }
      changes += 1;
    };

    const client = async (seed: number): Promise<void> => {
      let random = seed * 7919 + 1;
      while (!state.over) {
        random = (random * 1_103_515_245 + 12_345) % 2_147_483_648;
        // A server that was killed breaks connections: what it had not acknowledged may or may not be there.
        await change(Math.floor(random / 7)).catch(() => new Promise((resolve) => setTimeout(resolve, 20)));
      }
    };
    const killer = async (): Promise<void> => {
      for (let victim = 0; !state.over; victim = (victim + 1) % serverCount) {
        await new Promise((resolve) => setTimeout(resolve, 2500));
        if (state.over) return;
        servers[victim]?.kill();
        deaths += 1;
        servers[victim] = await start();
      }
    };
    const work = Promise.all([killer(), ...Array.from({ length: clientCount }, (_, seed) => client(seed))]);
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    state.over = true;
    await work;
    for (const { program } of servers) program.kill('SIGTERM');
    await Promise.all(servers.map(({ program }) => program.ended()));

    expect(wrong).toEqual([]);
    expect(changes).toBeGreaterThan(seconds * 20);
    expect(deaths).toBeGreaterThan(0);
    await expectAcknowledged(place, attempts);
    await expectWhole(place);
  },
);

type Place = Awaited<ReturnType<typeof sharedPlace>>;

/** Names that are never removed, for which an acknowledged version can only be followed by a newer one. */
function isLasting(name: string): boolean {
  return /[0-3]$/.test(name);
}

/** What is stored is what was sent under its version, and nothing newer was acknowledged that was not removed. */
async function expectAcknowledged(place: Place, attempts: ReadonlyMap<number, Attempt>): Promise<void> {
  expect([...attempts.values()].filter(({ acknowledged }) => acknowledged).length).toBeGreaterThan(50);
  for (const name of names) {
    const entry = (await place.catalog.find(parseFileName(name)))?.entry;
    const own = [...attempts].filter(([, attempt]) => attempt.name === name);
    const newestPut = Math.max(
      ...own.flatMap(([version, { digest, acknowledged }]) => (acknowledged && digest ? [version] : [])),
    );
    const removed = own.some(([version, { digest }]) => digest === undefined && version >= newestPut);
    if (entry !== undefined) expect(attempts.get(entry.version)?.digest).toBe(entry.digest);
    const found = (entry?.version ?? -Infinity) >= newestPut;
    expect({ name, keptOrRemoved: found || removed }).toEqual({ name, keptOrRemoved: true });
  }
}

/** Every entry's blob is there, whole; counts are right; after collection no object is left over. */
async function expectWhole({ catalog, blobs }: Place): Promise<void> {
  const references = new Map<string, number>();
  for await (const batch of catalog.listEntries('/')) {
    for (const { digest } of batch) references.set(digest, (references.get(digest) ?? 0) + 1);
  }
  const named = new Set<string>();
  for await (const batch of catalog.listBlobs()) {
    for (const record of batch) {
      expect(record.references).toBe(references.get(record.digest) ?? 0);
      references.delete(record.digest);
      expect((await checkBlob(record, blobs)).kind).toBe('intact');
    }
  }
  expect([...references]).toEqual([]);
  const unreferenced = await catalog.listUnreferenced(Date.now() + 1000, 1000);
  await catalog.collect(unreferenced, Date.now() + 1000);
  await catalog.sweepObjects(Date.now() + 1000);
  await blobs.sweepStaged(Number.MAX_SAFE_INTEGER);
  for await (const batch of catalog.listBlobs()) {
    for (const { location } of batch) if (location.kind === 'object') named.add(location.key);
  }
  const found: string[] = [];
  for await (const { key } of blobs.list()) if (!named.has(key)) found.push(key);
  await catalog.objects.removeOrphans(found);
  const left: string[] = [];
  for await (const { key } of blobs.list()) left.push(key);
  expect(new Set(left)).toEqual(named);
  const stats = await catalog.stats();
  expect(stats.unreferencedBlobs).toBe(0);
}
