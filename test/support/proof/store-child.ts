// A program that changes a store for as long as it is told, and writes down what it asks for and what is
// acknowledged. Run under the recorder; killed or cut off at any moment.
import { openSync, readSync, writeSync } from 'node:fs';
import { parseFileName } from '../../../src/core/file-name.ts';
import { messageOf } from '../../../src/core/errors.ts';
import { contentOf, drawContent, type HistoryLine } from './history.ts';
import { openProofStore, type ProofStore } from './proof-store.ts';
import { Random } from './random.ts';

export interface StoreChildOrder {
  readonly folder: string;
  readonly control: string;
  readonly history: string;
  readonly seed: string;
  /** Changes of each opening of the store, one after the other. */
  readonly sessions: readonly number[];
  readonly clients: number;
  /** Number of the first attempt, so that several runs make one history. */
  readonly firstId: number;
  /** From the second opening on the index is made anew, as a recovery does it. */
  readonly rebuild?: boolean;
}

const order = JSON.parse(process.argv[2] ?? '') as StoreChildOrder;
const control = openSync(order.control, 'r');
const history = openSync(order.history, 'a');
const random = new Random(order.seed);
let nextId = order.firstId;

function sequence(): number {
  const bytes = Buffer.alloc(8);
  readSync(control, bytes, 0, 8, 0);
  return Number(bytes.readBigUInt64LE(0));
}

function note(line: HistoryLine): void {
  writeSync(history, `${JSON.stringify(line)}\n`);
}

async function change(store: ProofStore, path: string): Promise<void> {
  const kind = random.chance(0.72) ? 'put' : 'remove';
  const id = nextId++;
  const version = random.chance(0.15) ? random.below(id + 1) : id;
  const content = kind === 'put' ? drawContent(random) : '';
  const name = parseFileName(path);
  note({ asked: { id, kind, name: path, version, content, begin: sequence() } });
  if (kind === 'remove') await store.files.remove({ name, version });
  else {
    const source = contentOf(content);
    await store.files.put({ name, version, claims: {} }, { source, encoding: 'identity' });
  }
  note({ id, end: sequence() });
}

/** One of several clients; each has names of its own, as a name's changes must follow one another. */
async function client(store: ProofStore, number: number, changes: number): Promise<void> {
  for (let done = 0; done < changes; done += 1) {
    await change(store, `/c${number}/d${random.below(2)}/f${random.below(5)}`);
    if (random.chance(0.03)) await store.collector.run();
    if (random.chance(0.02)) await store.catalog.compact();
  }
}

function fail(error: unknown): never {
  process.stderr.write(`${error instanceof Error ? String(error.stack) : messageOf(error)}\n`);
  process.exit(3);
}

try {
  for (const [opened, changes] of order.sessions.entries()) {
    await using store = await openProofStore(order.folder, {
      onProblem: (problem, error) => fail(new Error(problem, { cause: error })),
      rebuild: order.rebuild === true && opened > 0,
    });
    const share = Math.ceil(changes / order.clients);
    await Promise.all(Array.from({ length: order.clients }, (_, number) => client(store, number, share)));
  }
} catch (error) {
  fail(error);
}
