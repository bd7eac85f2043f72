import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { pino } from 'pino';
import { beforeEach, describe, expect, it } from 'vitest';
import { openStore } from '../../src/runtime/open-store.ts';
import { segmentPath } from '../../src/catalog/journal/segment-header.ts';
import { compareIndexes } from '../../src/catalog/lmdb/index/comparison.ts';
import { digestOf } from '../../src/core/digest.ts';
import { noise } from '../support/contents.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { recoverFolder } from '../support/recovery.ts';

let folder: string;

const named = noise(20_000, 'named');
const lost = noise(20_000, 'lost');

function blobPath(bytes: Buffer): string {
  const digest = digestOf(bytes);
  return join(folder, 'blobs', digest.slice(0, 2), `${digest}.gz`);
}

/** Opens the store as a server does, until it has said something of strays, or all that it looks for is found. */
async function strayWarning(): Promise<unknown> {
  const lines: { strays?: number }[] = [];
  const logger = pino(
    { level: 'warn' },
    { write: (line: string) => void lines.push(JSON.parse(line) as { strays?: number }) },
  );
  const store = await openStore({ folder, collectionGraceMs: 0, exclusive: true }, logger);
  try {
    for (const endMs = performance.now() + 20_000; lines.length === 0 && performance.now() < endMs;) {
      await delay(10);
    }
    return lines.at(0);
  } finally {
    await store.close();
  }
}

beforeEach(async () => {
  folder = await temporaryFolder();
  await using first = await EmbeddedStore.open(folder);
  await first.put('/named', 1, named);
  await first.close();
  // In a segment of its own, as after a crash.
  await using second = await EmbeddedStore.open(folder, { salvage: true });
  await second.put('/lost', 1, lost);
});

describe('blobs that no entry names', () => {
  it('stay if the last segment of the journal is gone, and are referenced again with it', async () => {
    const segment = segmentPath(join(folder, 'journal'), 2);
    const records = await readFile(segment);
    await rm(segment);
    await rm(join(folder, 'catalog'), { recursive: true });
    expect(await strayWarning()).toMatchObject({ strays: 1 });
    await expect(readFile(blobPath(lost))).resolves.toBeDefined();
    await writeFile(segment, records);
    await rm(join(folder, 'catalog'), { recursive: true });
    await using store = await EmbeddedStore.open(folder);
    expect(await store.read('/lost')).toEqual(lost);
    expect(await store.read('/named')).toEqual(named);
  });

  it('stay after a crash too, and recovery moves them to the quarantine', async () => {
    const stray = noise(20_000, 'stray');
    await mkdir(dirname(blobPath(stray)), { recursive: true });
    await writeFile(blobPath(stray), stray);
    await rm(join(folder, 'catalog', 'state.json'));
    expect(await strayWarning()).toMatchObject({ strays: 1 });
    const report = await recoverFolder(folder, { compare: compareIndexes });
    expect(report.actions).toMatchObject([{ action: 'quarantine-stray' }]);
    const kept = join(report.quarantine ?? '', 'blobs', digestOf(stray).slice(0, 2), `${digestOf(stray)}.gz`);
    expect(await readFile(kept)).toEqual(stray);
  });
});
