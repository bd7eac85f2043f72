import { mkdirSync, mkdtempSync, rmSync, existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { builtProgram, startNode, type Ended } from '../support/proof/child-program.ts';
import { readDiskLog, type DiskEvent } from '../support/proof/disk-log.ts';
import type { RemovalChildOrder } from '../support/proof/removal-child.ts';
import { readHistory } from '../support/proof/history.ts';
import { missedEvents } from '../support/proof/missed-events.ts';
import { Random } from '../support/proof/random.ts';
import { RecorderControl, recorderMissing } from '../support/proof/recorder.ts';
import { proofSeed, reportFigure, reportKills, scaled } from '../support/proof/scale.ts';
import { SimulatedDisk, type CutManner } from '../support/proof/simulated-disk.ts';
import { changeBoot } from '../support/proof/store-check.ts';
import { StoreChecker } from '../support/proof/store-checker.ts';
import type { StoreChildOrder } from '../support/proof/store-child.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

interface Recording {
  readonly folder: string;
  readonly events: readonly DiskEvent[];
  readonly history: string;
  /** Cuts come after this: when the process that lives last was started. */
  readonly bornAt: number;
}

interface RecordOptions {
  /** Part of the second opening: the index is made anew, as a recovery does it. */
  readonly rebuild?: boolean;
  /** The process is killed at a change, up to this one, and another goes on. */
  readonly killWithin?: number;
}

/** Runs a store under load and writes down what it asks of the disk. */
async function record(
  seed: string,
  sessions: readonly number[],
  { rebuild = false, killWithin }: RecordOptions = {},
): Promise<Recording> {
  const random = new Random(`${seed}-record`);
  const place = await temporaryFolder();
  const folder = join(place, 'store');
  mkdirSync(folder);
  const control = new RecorderControl(join(place, 'control'));
  const history = join(place, 'history');
  const log = join(place, 'disk-log');
  const program = await builtProgram('./store-child.ts');
  const live = async (name: string, lives: readonly number[]): Promise<Ended> => {
    const firstId = readHistory(history).length + 1;
    const order = {
      folder,
      control: control.path,
      history,
      seed: name,
      sessions: lives,
      clients: 4,
      firstId,
      rebuild,
    };
    const args = [program, JSON.stringify(order satisfies StoreChildOrder)];
    const ended = await startNode(args, control.environment(folder, log)).ended;
    expect(ended.errors, `seed ${seed}`).toBe('');
    return ended;
  };
  let before: DiskEvent[] = [];
  let bornAt = 0;
  if (killWithin !== undefined) {
    const torn = random.pick([false, true, 'whole', 'whole'] as const);
    control.killAt(1 + random.below(killWithin), { torn, group: true });
    // So many changes that it cannot have ended by itself.
    expect((await live(`${seed}-killed`, [killWithin])).signal).toBe('SIGKILL');
    control.killAt(0);
    bornAt = control.sequence;
    before = readDiskLog(log);
    before.push(...missedEvents(folder, before, bornAt));
  }
  expect((await live(seed, sessions)).code).toBe(0);
  control.close();
  const after = readDiskLog(log).filter(({ end }) => end > bornAt);
  return { folder, events: [...before, ...after], history, bornAt };
}

/** Runs the program in which a removal is forgotten with the segments that told of it. */
async function recordRemoval(): Promise<Recording> {
  const place = await temporaryFolder();
  const folder = join(place, 'store');
  mkdirSync(folder);
  const control = new RecorderControl(join(place, 'control'));
  const history = join(place, 'history');
  const log = join(place, 'disk-log');
  const order: RemovalChildOrder = { folder, control: control.path, history };
  const args = [await builtProgram('./removal-child.ts'), JSON.stringify(order)];
  const ended = await startNode(args, control.environment(folder, log)).ended;
  control.close();
  expect(ended).toMatchObject({ code: 0, errors: '' });
  return { folder, events: readDiskLog(log), history, bornAt: 0 };
}

/** The syncs of a folder that make the removal of some file in it durable. */
function syncsAfterRemoval(events: readonly DiskEvent[], file: RegExp): ReadonlySet<DiskEvent> {
  const syncs = new Set<DiskEvent>();
  let removedIn: string | undefined;
  for (const event of events) {
    if (event.kind === 'unlink' && file.test(event.path)) removedIn = dirname(event.path);
    if (event.kind !== 'sync' || event.path !== removedIn) continue;
    syncs.add(event);
    removedIn = undefined;
  }
  return syncs;
}

const manners: readonly CutManner[] = [
  { bytes: 0, names: 0, pieceSizeBytes: 4096 },
  { bytes: 0.5, names: 0.5, pieceSizeBytes: 4096 },
  { bytes: 0.5, names: 0.5, pieceSizeBytes: 512 },
  { bytes: 0, names: 1, pieceSizeBytes: 4096 },
  { bytes: 0.8, names: 0.2, pieceSizeBytes: 4096 },
  { bytes: 0.2, names: 0.9, pieceSizeBytes: 512 },
  { bytes: 1, names: 1, pieceSizeBytes: 4096 },
];

/** Moments right after and right before the end of each sync, and in the midst of changes. */
function momentsOf(events: readonly DiskEvent[], bornAt: number): number[] {
  const moments = new Set<number>();
  for (const event of events) {
    if (event.begin <= bornAt) continue;
    if (event.kind !== 'sync' && !event.durable) continue;
    moments.add(event.end);
    moments.add(event.end - 1);
    moments.add(event.begin);
  }
  return [...moments].sort((one, other) => one - other);
}

interface Found {
  readonly cuts: number;
  readonly failures: readonly string[];
}

/** Cuts a recording at some of its moments and opens what is left; stops at `failuresMax`. */
async function cutRecording(
  { folder, events, history, bornAt }: Recording,
  options: {
    seed: string;
    cuts: number;
    failuresMax?: number;
    ignored?: (event: DiskEvent) => boolean;
    moments?: readonly number[];
  },
): Promise<Found> {
  const random = new Random(options.seed);
  using checker = await StoreChecker.start(history);
  const disk = new SimulatedDisk(folder, events, options.ignored);
  const all = options.moments ?? momentsOf(events, bornAt);
  const moments = Array.from({ length: options.cuts }, () => random.pick(all));
  const base = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
  const failures: string[] = [];
  let cuts = 0;
  for (const moment of moments.sort((one, other) => one - other)) {
    disk.advance(moment);
    const target = mkdtempSync(join(base, 'filetracker-cut-'));
    try {
      const manner = random.pick(manners);
      disk.cut(moment, target, manner, random);
      changeBoot(target);
      cuts += 1;
      const problem = await checker.check(target, moment);
      if (problem !== undefined) failures.push(`at ${moment}, ${JSON.stringify(manner)}: ${problem}`);
    } finally {
      rmSync(target, { recursive: true });
    }
    if (failures.length >= (options.failuresMax ?? 3)) break;
  }
  return { cuts, failures };
}

const missing = recorderMissing();
if (missing !== undefined) console.warn(`Power loss is not tested: ${missing}`);

describe.runIf(missing === undefined)(
  `power loss, seed ${proofSeed}`,
  { timeout: scaled(120_000, 1_800_000) },
  () => {
    let recording: Recording;

    it('leaves every acknowledged change whole, and nothing that was not asked for', async () => {
      const runs = scaled(2, 10);
      let cuts = 0;
      for (let run = 0; run < runs; run += 1) {
        const seed = `${proofSeed}-${run}`;
        recording = await record(seed, [120, 60]);
        const found = await cutRecording(recording, { seed, cuts: scaled(50, 350) });
        expect(found.failures, `seed ${seed}`).toEqual([]);
        cuts += found.cuts;
      }
      reportFigure('power loss', `${cuts} disks rebuilt after cuts of ${runs} recordings; all whole`);
    });

    it('leaves what was acknowledged after a process was killed, which had left things half done', async () => {
      const runs = scaled(2, 24);
      let cuts = 0;
      for (let run = 0; run < runs; run += 1) {
        const seed = `${proofSeed}-killed-${run}`;
        const found = await cutRecording(await record(seed, [60], { killWithin: 200 }), {
          seed,
          cuts: scaled(15, 40),
        });
        expect(found.failures, `seed ${seed}`).toEqual([]);
        cuts += found.cuts;
      }
      reportKills(
        'power loss after a kill',
        runs,
        `of a process, ${cuts} disks after cuts of the next one; all whole`,
      );
    });

    // Which syncs there are, and that each is needed: a build without it is caught.
    const mutations: readonly { readonly without: string; readonly sync: (event: DiskEvent) => boolean }[] = [
      {
        without: 'the sync of a group of the journal',
        sync: ({ kind, path }) => kind === 'write' && /journal\/\d+\.log$/.test(path),
      },
      {
        without: 'the sync of the journal folder',
        sync: ({ folder, path }) => folder && path.endsWith('/journal'),
      },
      { without: 'the sync of an upload', sync: ({ folder, path }) => !folder && path.includes('/uploads/') },
      {
        without: 'the sync of a folder of blobs',
        sync: ({ folder, path }) => folder && /\/blobs\/..$/.test(path),
      },
      {
        without: 'the sync of the folder of all blobs',
        sync: ({ folder, path }) => folder && path.endsWith('/blobs'),
      },
      {
        without: 'the sync of the store folder',
        sync: ({ folder, path }) => folder && path.endsWith('/store'),
      },
      {
        without: 'the sync of the index when it is closed',
        sync: ({ folder, path }) => !folder && path.endsWith('/data.mdb'),
      },
      {
        without: 'the sync of the folder of the index',
        sync: ({ folder, path }) => folder && path.endsWith('/catalog'),
      },
    ];
    it.for(mutations)('catches a build without $without', async ({ sync }) => {
      recording ??= await record(`${proofSeed}-mutations`, [100, 80]);
      const { events } = recording;
      const touched = events.filter((event) => (event.kind === 'sync' || event.durable) && sync(event));
      expect(touched.length).toBeGreaterThan(0);
      const ends = touched.map((event) => event.end);
      const moments = ends.flatMap((end) => Array.from({ length: 150 }, (_, after) => end + after));
      const options = { seed: proofSeed, cuts: 300, failuresMax: 1, ignored: sync, moments };
      const found = await cutRecording(recording, options);
      expect(found.failures.length).toBeGreaterThan(0);
    });

    it.for([
      {
        without: 'the sync of the journal folder after a segment was removed',
        file: /\/journal\/\d+\.log$/,
        make: recordRemoval,
      },
      {
        without: 'the sync of the folder of the index after an old index was removed',
        file: /\/catalog\/state\.json$/,
        make: () => record(`${proofSeed}-rebuild`, [100, 40], { rebuild: true }),
      },
    ])('catches a build that leaves out $without', async ({ file, make }) => {
      const made = await make();
      const syncs = syncsAfterRemoval(made.events, file);
      expect(syncs.size).toBeGreaterThan(0);
      // It is the last removal of each that must not be undone.
      const last = [...syncs].at(-1)?.begin ?? 0;
      const moments = Array.from({ length: 60 }, (_, after) => last + after);
      const options = { seed: proofSeed, moments };
      expect((await cutRecording(made, { ...options, cuts: scaled(20, 200) })).failures).toEqual([]);
      const ignored = (event: DiskEvent): boolean => syncs.has(event);
      const found = await cutRecording(made, { ...options, cuts: 300, failuresMax: 1, ignored });
      expect(found.failures.length).toBeGreaterThan(0);
    });
  },
);
