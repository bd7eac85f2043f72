// A program in which a segment that holds an old put goes before the one that holds the removal of it, with no segment
// begun in between: so nothing but the sync after each removal of a segment keeps the put from coming back alone.
import { openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { listSegments } from '../../../src/catalog/journal/segment.ts';
import { ManualClock } from '../manual-clock.ts';
import { parseFileName } from '../../../src/core/file-name.ts';
import { removalMemoryMs } from '../../../src/core/limits.ts';
import { contentOf, type HistoryLine } from './history.ts';
import { openProofStore } from './proof-store.ts';

export interface RemovalChildOrder {
  readonly folder: string;
  readonly control: string;
  readonly history: string;
}

const order = JSON.parse(process.argv[2] ?? '') as RemovalChildOrder;
const control = openSync(order.control, 'r');
const history = openSync(order.history, 'a');
const dayMs = 24 * 3_600_000;
// So far back that nothing is of the future for who opens the store afterwards.
const clock = new ManualClock(Date.now() - removalMemoryMs - 2 * dayMs);
await using store = await openProofStore(order.folder, { clock, segmentSizeBytes: 32 * 1024 });
const journal = join(order.folder, 'journal');
let nextId = 1;

function sequence(): number {
  const bytes = Buffer.alloc(8);
  readSync(control, bytes, 0, 8, 0);
  return Number(bytes.readBigUInt64LE(0));
}

function note(line: HistoryLine): void {
  writeSync(history, `${JSON.stringify(line)}\n`);
}

async function put(path: string): Promise<void> {
  const id = nextId++;
  const content = `8000-${id}`;
  note({ asked: { id, kind: 'put', name: path, version: id, content, begin: sequence() } });
  const intent = { name: parseFileName(path), version: id, claims: {} };
  await store.files.put(intent, { source: contentOf(content), encoding: 'identity' });
  note({ id, end: sequence() });
}

async function remove(path: string): Promise<void> {
  const id = nextId++;
  note({ asked: { id, kind: 'remove', name: path, version: id, content: '', begin: sequence() } });
  await store.files.remove({ name: parseFileName(path), version: id });
  note({ id, end: sequence() });
}

interface Filled {
  readonly paths: readonly string[];
  /** Of the file that began the next segment. */
  readonly next: string;
}

/** Puts files below a folder until a new segment has begun. */
async function fillSegment(folder: string): Promise<Filled> {
  const before = (await listSegments(journal)).at(-1);
  const paths: string[] = [];
  while ((await listSegments(journal)).at(-1) === before) {
    const path = `${folder}/${paths.length}`;
    await put(path);
    paths.push(path);
  }
  return { paths: paths.slice(0, -1), next: paths.at(-1) ?? '' };
}

async function removeAll(paths: readonly string[]): Promise<void> {
  for (const path of paths) await remove(path);
  await store.collector.run();
  await store.catalog.compact();
}

await put('/old');
const first = await fillSegment('/first');
await remove('/old');
const second = await fillSegment('/second');
// The segment of the removal is dropped; the removal is written again, behind it.
await removeAll([first.next, ...second.paths]);
const third = await fillSegment('/third');
// The segment of the old put is dropped.
await removeAll(first.paths);
// The removal is forgotten, and so is the segment in which it was written again.
clock.advance(removalMemoryMs + dayMs);
await removeAll([second.next, ...third.paths]);
