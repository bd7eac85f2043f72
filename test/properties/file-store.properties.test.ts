import { fc } from '../support/properties.ts';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { digestOf } from '../../src/core/digest.ts';
import { isFiletrackerError } from '../../src/core/errors.ts';
import { noise, prose } from '../support/contents.ts';
import {
  bodyOf,
  embeddedFileStore,
  leftovers,
  memoryFileStore,
  nameOf,
  put,
  read,
  streamOf,
  type FileStoreFactory,
  type FileStoreParts,
  statOf,
} from '../support/file-stores.ts';
import { present } from '../support/present.ts';
import { openFile } from '../../src/store/get.ts';

const names = ['/a', '/a/b', '/a/b/c', '/d', '/e/f', '/e/g'] as const;
/** Some that travel inside the change, some that are staged, some that stream. */
const contents = [
  Buffer.alloc(0),
  prose(50),
  noise(20_000, 'one'),
  noise(20_000, 'two'),
  prose(30_000),
  noise(70_000),
];
const limits = { bufferedBodyMaxBytes: 50_000, bufferedGzipBodyMaxBytes: 50_000 };

type Way = 'plain' | 'gzip' | 'streamed' | 'claimed' | 'broken';
type Operation =
  | { readonly kind: 'put'; name: string; version: number; content: number; way: Way }
  | { readonly kind: 'remove'; name: string; version: number }
  | { readonly kind: 'read'; name: string; form: 'stored' | 'identity' }
  | { readonly kind: 'list' | 'collect' };

const name = fc.constantFrom(...names);
const version = fc.integer({ min: -2, max: 5 });
const content = fc.nat({ max: contents.length - 1 });
const way = fc.constantFrom<Way>('plain', 'gzip', 'streamed', 'claimed', 'broken');
const form = fc.constantFrom('stored' as const, 'identity' as const);
const putOperation = fc.record({ kind: fc.constant('put' as const), name, version, content, way });
const operation: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 10, arbitrary: putOperation },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('remove' as const), name, version }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('read' as const), name, form }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constantFrom('list' as const, 'collect' as const) }) },
);

/** What a file store is, in a few lines: the newest version of each name, no name below another. */
class Model {
  readonly files = new Map<string, { version: number; content: number }>();

  apply(step: Operation): unknown {
    switch (step.kind) {
      case 'put':
        return step.way === 'broken' ? 'corrupt-encoding' : this.#put(step.name, step);
      case 'remove': {
        const file = this.files.get(step.name);
        if (file === undefined) return undefined;
        const removed = file.version <= step.version;
        if (removed) this.files.delete(step.name);
        return { version: file.version, removed };
      }
      case 'read': {
        const file = this.files.get(step.name);
        return file && { version: file.version, digest: digestOf(present(contents[file.content])) };
      }
      case 'list':
        return [...this.files].map(([name, { version }]) => [name, version] as const).toSorted(byName);
      case 'collect':
        return undefined;
    }
  }

  #put(name: string, { version, content }: { version: number; content: number }): unknown {
    const file = this.files.get(name);
    if (file !== undefined && file.version > version) return { version: file.version, stored: false };
    const others = [...this.files.keys()];
    if (others.some((other) => name.startsWith(`${other}/`) || other.startsWith(`${name}/`))) {
      return 'name-conflict';
    }
    this.files.set(name, { version, content });
    return { version, stored: true };
  }

  get digests(): Set<string> {
    return new Set([...this.files.values()].map(({ content }) => digestOf(present(contents[content]))));
  }
}

function byName([one]: readonly [string, number], [other]: readonly [string, number]): number {
  return one < other ? -1 : 1;
}

async function collectAll(parts: FileStoreParts): Promise<void> {
  const all = await parts.catalog.listUnreferenced(Number.MAX_SAFE_INTEGER, 1_000);
  await parts.catalog.collect(all, Number.MAX_SAFE_INTEGER);
}

async function putBody(parts: FileStoreParts, step: Operation & { kind: 'put' }): Promise<unknown> {
  const bytes = present(contents[step.content]);
  const claims = step.way === 'claimed' ? { digest: digestOf(bytes), logicalSize: bytes.length } : {};
  const gzip = gzipSync(bytes);
  const body = {
    plain: bytes,
    gzip,
    streamed: streamOf(bytes, 7_000),
    claimed: streamOf(bytes, 7_000),
    broken: gzip.subarray(0, -1),
  }[step.way];
  const encoding = step.way === 'gzip' || step.way === 'broken' ? 'gzip' : 'identity';
  const { version, stored } = await put(parts.store, step.name, step.version, body, { encoding, claims });
  return { version, stored };
}

async function apply(parts: FileStoreParts, step: Operation): Promise<unknown> {
  const { store } = parts;
  switch (step.kind) {
    case 'put':
      try {
        return await putBody(parts, step);
      } catch (error) {
        if (isFiletrackerError(error)) return error.code;
        throw error;
      }
    case 'remove':
      return store.remove({ name: nameOf(step.name), version: step.version });
    case 'read': {
      const file = await openFile(store, nameOf(step.name), { form: step.form });
      if (file === undefined) return undefined;
      const bytes = await bodyOf(file);
      expect(bytes.length).toBe(file.size);
      const digest = file.encoding === 'identity' ? digestOf(bytes) : file.entry.digest;
      return { version: file.entry.version, digest };
    }
    case 'list': {
      const listed: [string, number][] = [];
      for await (const batch of store.listEntries('/')) {
        for (const entry of batch) listed.push([entry.name, entry.version]);
      }
      return listed;
    }
    case 'collect':
      await collectAll(parts);
      return undefined;
  }
}

/** After collection there is one blob for each content that has a name, and nothing else. */
async function expectNoWaste(parts: FileStoreParts, digests: Set<string>): Promise<void> {
  await collectAll(parts);
  expect(await parts.store.stats()).toMatchObject({ blobs: digests.size, unreferencedBlobs: 0 });
  const left = await leftovers(parts);
  expect(left.uploads).toBe(0);
  let objects = 0;
  for (const digest of digests) {
    const blob = present(await parts.catalog.findBlob(digest as never));
    if (blob.location.kind === 'object') objects += 1;
  }
  expect(left.blobs).toBe(objects);
}

async function runSequence(create: FileStoreFactory, steps: readonly Operation[]): Promise<void> {
  const parts = await create({ limits });
  try {
    const model = new Model();
    for (const step of steps)
      expect(await apply(parts, step), JSON.stringify(step)).toEqual(model.apply(step));
    expect(await parts.store.stats()).toMatchObject({ entries: model.files.size });
    await expectNoWaste(parts, model.digests);
    expect(parts.problems).toEqual([]);
  } finally {
    await parts.close();
  }
}

/** Puts, reads and collection all at once: what readers see meanwhile, and what is there in the end. */
async function runRace(create: FileStoreFactory, steps: readonly Operation[]): Promise<void> {
  const parts = await create({ limits });
  try {
    const queue = [...steps];
    const worker = async (): Promise<void> => {
      for (let step = queue.shift(); step !== undefined; step = queue.shift()) {
        const seen = await apply(parts, step);
        if (step.kind !== 'read' || seen === undefined) continue;
        const { version, digest } = seen as { version: number; digest: string };
        const writers = steps.filter((other) => other.kind === 'put' && other.name === step.name);
        const written = writers.map(
          (writer) => writer.kind === 'put' && [writer.version, digestAt(writer.content)],
        );
        expect(written).toContainEqual([version, digest]);
      }
    };
    await Promise.all(Array.from({ length: 6 }, worker));
    await expectNewest(parts, steps);
  } finally {
    await parts.close();
  }
}

function digestAt(index: number): string {
  return digestOf(present(contents[index]));
}

async function expectNewest(parts: FileStoreParts, steps: readonly Operation[]): Promise<void> {
  const digests = new Set<string>();
  for (const path of new Set(steps.map((step) => ('name' in step ? step.name : '/a')))) {
    const puts = steps.filter((step) => step.kind === 'put' && step.name === path && step.way !== 'broken');
    const sound = puts as (Operation & { kind: 'put' })[];
    const bytes = await read(parts.store, path);
    if (sound.length === 0) {
      expect(bytes).toBeUndefined();
      continue;
    }
    const newest = Math.max(...sound.map(({ version }) => version));
    expect((await statOf(parts.store, nameOf(path)))?.version).toBe(newest);
    const digest = digestOf(present(bytes));
    digests.add(digest);
    const last = sound.filter(({ version }) => version === newest);
    expect(last.map(({ content }) => digestAt(content))).toContain(digest);
  }
  await expectNoWaste(parts, digests);
}

/** Few names that do not stand in each other's way, and few versions: overwriting is the rule. */
const racePut = fc.record({
  kind: fc.constant('put' as const),
  name: fc.constantFrom('/a', '/d', '/e/f'),
  version: fc.integer({ min: 1, max: 3 }),
  content,
  way,
});
const raceRead = fc.record({
  kind: fc.constant('read' as const),
  name: fc.constantFrom('/a', '/d', '/e/f'),
  form,
});
const raceOperation: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 5, arbitrary: racePut },
  { weight: 4, arbitrary: raceRead },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('collect' as const) }) },
);

describe.each([
  ['in memory', memoryFileStore, 60],
  ['on disk', embeddedFileStore, 20],
] as const)('FileStore %s', (_where, create, numRuns) => {
  it('does what the model does', async () => {
    const steps = fc.array(operation, { minLength: 1, maxLength: 40 });
    await fc.assert(
      fc.asyncProperty(steps, (sequence) => runSequence(create, sequence)),
      { numRuns },
    );
  });

  it('keeps the newest version, whole, however puts, reads and collection interleave', async () => {
    const steps = fc.array(raceOperation, { minLength: 20, maxLength: 80 });
    await fc.assert(
      fc.asyncProperty(steps, (sequence) => runRace(create, sequence)),
      { numRuns },
    );
  });
});
