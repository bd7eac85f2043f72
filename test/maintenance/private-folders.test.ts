import { mkdir, readdir, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { pino } from 'pino';
import { beforeEach, expect, it, onTestFinished } from 'vitest';
import { openStore } from '../../src/runtime/open-store.ts';
import { TokenFileEditor } from '../../src/access/token-store.ts';
import { segmentPath } from '../../src/catalog/journal/segment-header.ts';
import { compareIndexes } from '../../src/catalog/lmdb/index/comparison.ts';
import { systemClock } from '../../src/core/clock.ts';
import { backupStore } from '../../src/maintenance/backup/backup.ts';
import { restoreStore } from '../../src/maintenance/backup/restore.ts';
import { noise } from '../support/contents.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { recoverFolder } from '../support/recovery.ts';

let root: string;

beforeEach(async () => {
  const before = process.umask(0);
  onTestFinished(() => void process.umask(before));
  root = await temporaryFolder();
});

async function modeOf(path: string): Promise<string> {
  return ((await stat(path)).mode & 0o777).toString(8);
}

async function makeStore(folder: string): Promise<void> {
  const settings = { folder, collectionGraceMs: 0, exclusive: true };
  await (await openStore(settings, pino({ level: 'silent' }))).close();
  const editor = new TokenFileEditor(folder, systemClock);
  await editor.add({ name: 'a', prefixes: ['/'], rights: ['read'], expiresAtMs: undefined });
  await using store = await EmbeddedStore.open(folder);
  await store.put('/a', 1, noise(100));
  await store.put('/b', 1, noise(20_000));
}

/** The folders in a folder, and what of the files tells of tokens. */
async function modesIn(folder: string): Promise<Record<string, string>> {
  const modes: Record<string, string> = {};
  for (const item of await readdir(folder, { withFileTypes: true })) {
    const isSecret = item.isDirectory() || item.name.startsWith('tokens');
    if (isSecret) modes[item.name] = await modeOf(join(folder, item.name));
  }
  return modes;
}

const parts = { blobs: '700', journal: '700' };
const tokens = { 'tokens.json': '600', 'tokens-required.json': '600' };

it('a new store, its backup and a store restored from it are accessible to their owner alone', async () => {
  const folder = join(root, 'new', 'store');
  await makeStore(folder);
  expect(await modeOf(folder)).toBe('700');
  const whole = { ...parts, ...tokens, catalog: '700', uploads: '700', 'tokens.lock': '600' };
  expect(await modesIn(folder)).toEqual(whole);
  const backup = join(root, 'backup');
  await backupStore(folder, backup);
  expect(await modeOf(backup)).toBe('700');
  expect(await modesIn(backup)).toMatchObject({ ...parts, ...tokens, history: '700' });
  const restored = join(root, 'restored');
  await restoreStore(backup, restored);
  expect(await modeOf(restored)).toBe('700');
  expect(await modesIn(restored)).toMatchObject({ ...parts, ...tokens });
});

it('the parts of a store in a folder that others may read are accessible to their owner alone', async () => {
  const folder = join(root, 'store');
  await mkdir(folder, 0o755);
  await makeStore(folder);
  expect(await modeOf(folder)).toBe('755');
  expect(await modesIn(folder)).toMatchObject({ ...parts, ...tokens, catalog: '700', uploads: '700' });
  const segment = segmentPath(join(folder, 'journal'), 1);
  await truncate(segment, (await stat(segment)).size - 8);
  await recoverFolder(folder, { compare: compareIndexes });
  expect(await modesIn(folder)).toMatchObject({ quarantine: '700' });
});
