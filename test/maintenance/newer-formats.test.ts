import { readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pino } from 'pino';
import { beforeEach, describe, expect, it } from 'vitest';
import { openStore } from '../../src/runtime/open-store.ts';
import { TokenFileEditor, TokenStore } from '../../src/access/token-store.ts';
import { compareIndexes } from '../../src/catalog/lmdb/index/comparison.ts';
import { systemClock } from '../../src/core/clock.ts';
import { backupStore } from '../../src/maintenance/backup/backup.ts';
import { refuseNewerFormats } from '../../src/maintenance/folder-kind.ts';
import { restoreStore } from '../../src/maintenance/backup/restore.ts';
import { noise } from '../support/contents.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { recoverFolder } from '../support/recovery.ts';

let root: string;
let folder: string;

beforeEach(async () => {
  root = await temporaryFolder();
  folder = join(root, 'store');
  await using store = await EmbeddedStore.open(folder);
  await store.put('/a', 1, noise(100));
  await store.put('/b', 1, noise(20_000));
});

function refused(file: string, format: number): object {
  return { code: 'corrupt-store', message: expect.stringMatching(messageOf(file, format)) as string };
}

const messageOf = (file: string, format: number): RegExp =>
  new RegExp(
    `^Cannot read "${file.replaceAll('.', String.raw`\.`)}": its format is ${format}, but .* supports 1`,
  );

/** Every file and its bytes. */
async function everything(): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const name of (await readdir(root, { recursive: true })).sort()) {
    const path = join(root, name);
    const isFile = (await stat(path)).isFile();
    found.set(name, isFile ? await readFile(path, 'latin1') : 'folder');
  }
  return found;
}

/** What every program does first with a store. */
const uses: Readonly<Record<string, () => Promise<unknown>>> = {
  'the server': () => openStore({ folder, collectionGraceMs: 0, exclusive: true }, pino({ level: 'silent' })),
  recovery: () => recoverFolder(folder, { compare: compareIndexes }),
  'a dry run of recovery': () => recoverFolder(folder, { compare: compareIndexes, dryRun: true }),
  backup: () => backupStore(folder, join(root, 'backup')),
};

async function newerSegment(at: string): Promise<void> {
  const path = join(at, '0000000001.log');
  const bytes = await readFile(path);
  bytes.write('FTJRNL03', 0, 'latin1');
  await writeFile(path, bytes);
}

describe.each(Object.keys(uses))('%s', (use) => {
  it('refuses a segment of a newer format and leaves the store as it was', async () => {
    await newerSegment(join(folder, 'journal'));
    const before = await everything();
    await expect(uses[use]?.()).rejects.toMatchObject(refused('journal/0000000001.log', 3));
    expect(await everything()).toEqual(before);
  });

  it.each(['adoption.json', 'catalog/state.json', 'store.json', 'tokens.json', 'verification.json'])(
    'refuses %s of a newer format and leaves the store as it was',
    async (file) => {
      await writeFile(join(folder, file), '{"format":7}');
      const before = await everything();
      await expect(uses[use]?.()).rejects.toMatchObject(refused(file, 7));
      expect(await everything()).toEqual(before);
    },
  );
});

it('a segment that is removed after it was listed has no format to refuse', async () => {
  // A link to nothing is listed and cannot be opened, as a segment that compaction removes in between.
  await symlink('gone', join(folder, 'journal', '0000000002.log'));
  expect(await refuseNewerFormats(folder)).toBeUndefined();
});

describe('a backup in which a newer release has written', () => {
  it.each(['backup.json', 'snapshot.json', '0000000001.log'])(
    'is neither restored nor added to because of its %s',
    async (file) => {
      const backup = join(root, 'backup');
      await backupStore(folder, backup);
      const [snapshot = ''] = await readdir(join(backup, 'history'));
      const history = join(backup, 'history', snapshot);
      if (file === 'backup.json') await writeFile(join(backup, file), '{"format":7}');
      if (file === 'snapshot.json') await writeFile(join(history, file), '{"format":7}');
      if (file === '0000000001.log') await newerSegment(history);
      const before = await everything();
      const error = { code: 'corrupt-store', message: expect.stringContaining(file) as string };
      await expect(restoreStore(backup, join(root, 'restored'))).rejects.toMatchObject(error);
      expect(await everything()).toEqual(before);
      if (file === '0000000001.log') return;
      await expect(backupStore(folder, backup)).rejects.toMatchObject(error);
      expect(await readdir(join(backup, 'history'))).toEqual([snapshot]);
    },
  );
});

it('tokens of a newer format are neither read nor overwritten', async () => {
  await writeFile(join(folder, 'tokens.json'), '{"format":7,"tokens":[]}');
  const error = refused('tokens.json', 7);
  await expect(TokenStore.open(folder, () => undefined)).rejects.toMatchObject(error);
  const editor = new TokenFileEditor(folder, systemClock);
  const wanted = { name: 'a', prefixes: ['/'], rights: ['read'], expiresAtMs: undefined } as const;
  await expect(editor.add(wanted)).rejects.toMatchObject(error);
  expect(await readFile(join(folder, 'tokens.json'), 'utf8')).toBe('{"format":7,"tokens":[]}');
});
