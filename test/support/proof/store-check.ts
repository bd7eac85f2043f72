import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseFileName } from '../../../src/core/file-name.ts';
import { collected } from '../contents.ts';
import { contentDigest, isAbsent, possibleStates, type Attempt } from './history.ts';
import { openProofStore, type ProofStore } from './proof-store.ts';
import { openFile } from '../../../src/store/get.ts';

/** What a reader sees of each name: `<version> <digest>`; its bytes were read and are right. */
async function visibleFiles(store: ProofStore): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  for await (const batch of store.files.listEntries('/')) {
    for (const { name, version, digest, logicalSize } of batch) {
      const file = await openFile(store.files, name, { form: 'identity' });
      if (file === undefined) throw new Error(`${name} is in the list and cannot be opened`);
      const bytes = Buffer.isBuffer(file.body) ? file.body : await collected(file.body);
      if (bytes.length !== logicalSize || file.entry.version !== version) {
        throw new Error(`${name} has ${bytes.length} bytes, not ${logicalSize}, or another version`);
      }
      const found = createHash('sha256').update(bytes).digest('hex');
      if (found !== digest) throw new Error(`${name} has not the content that its entry names`);
      files.set(name, `${version} ${digest}`);
    }
  }
  return files;
}

/** Counts of references are right, and whatever an entry names is there. */
async function checkCounts(store: ProofStore): Promise<void> {
  const named = new Map<string, number>();
  let entries = 0;
  for await (const batch of store.catalog.listEntries('/')) {
    for (const { digest } of batch) named.set(digest, (named.get(digest) ?? 0) + 1);
    entries += batch.length;
  }
  let blobs = 0;
  for await (const batch of store.catalog.listBlobs()) {
    for (const { digest, references, damaged } of batch) {
      blobs += 1;
      if (references !== (named.get(digest) ?? 0))
        throw new Error(`${digest} is counted ${references} times`);
      if (damaged && references > 0) throw new Error(`${digest} is marked as damaged`);
      named.delete(digest);
    }
  }
  const stats = await store.catalog.stats();
  if (named.size > 0) throw new Error(`${named.size} contents are named and unknown`);
  if (stats.entries !== entries || stats.blobs !== blobs) {
    throw new Error(
      `the sums say ${stats.entries} entries and ${stats.blobs} blobs, not ${entries} and ${blobs}`,
    );
  }
}

/** @throws Error that says what is missing, or there and should not be. */
async function checkAgainst(
  store: ProofStore,
  attempts: readonly Attempt[],
  sequence = Infinity,
): Promise<void> {
  const possible = possibleStates(attempts, sequence);
  const files = await visibleFiles(store);
  for (const [name, states] of possible) {
    const allowed = [...states].map((state) => {
      const [version, content] = state.split(' ');
      return isAbsent(state) ? 'absent' : `${version} ${contentDigest(content ?? '')}`;
    });
    const found = files.get(name) ?? 'absent';
    if (!allowed.includes(found)) {
      throw new Error(`${name} is ${found}, and may be ${allowed.join(' or ')} (${[...states].join(', ')})`);
    }
    files.delete(name);
  }
  if (files.size > 0) throw new Error(`${[...files.keys()].join(', ')} is there and was not asked for`);
  await checkCounts(store);
}

/** Makes a rebuilt disk that of another boot; the inode is made right, so that it alone does not give it away. */
export function changeBoot(folder: string): void {
  const path = join(folder, 'catalog', 'state.json');
  const data = join(folder, 'catalog', 'data.mdb');
  if (!existsSync(path) || !existsSync(data)) return;
  try {
    const state = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
    writeFileSync(path, JSON.stringify({ ...state, bootId: 'the-boot-before', inode: statSync(data).ino }));
  } catch {
    // Not written whole: it stays as it is.
  }
}

/**
 * Opens the store in a folder and checks it, changes it, collects, opens it again and checks again.
 * @throws Error that says what is wrong.
 */
export async function checkStore(
  folder: string,
  attempts: readonly Attempt[],
  sequence = Infinity,
): Promise<void> {
  let problem: Error | undefined;
  const note = (text: string, error: unknown): void => {
    problem ??= new Error(`the store could not ${text}`, { cause: error });
  };
  const name = parseFileName('/after/the/cut');
  {
    await using store = await openProofStore(folder, { onProblem: note });
    await checkAgainst(store, attempts, sequence);
    const source = Buffer.from('after the cut');
    await store.files.put({ name, version: 1, claims: {} }, { source, encoding: 'identity' });
    await store.collector.run();
    await store.catalog.compact();
  }
  {
    await using store = await openProofStore(folder, { onProblem: note });
    const removed = await store.files.remove({ name, version: 1 });
    if (removed?.removed !== true) throw new Error('what was stored after the cut is not there');
    await checkAgainst(store, attempts, sequence);
  }
  const uploads = readdirSync(join(folder, 'uploads'));
  if (uploads.length > 0) throw new Error(`${uploads.length} uploads are left over`);
  if (problem !== undefined) throw problem;
}
