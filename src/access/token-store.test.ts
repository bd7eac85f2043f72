import { pbkdf2 } from 'node:crypto';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { temporaryFolder } from '../../test/support/temporary-folder.ts';
import { systemClock } from '../core/clock.ts';
import { parseRights, type NewToken } from './token.ts';
import { TokenFileEditor, TokenStore } from './token-store.ts';

const patience = { timeout: 60_000 };
const judge: NewToken = { name: 'judge', prefixes: ['/p/'], rights: ['read', 'list'] };

async function openStore(folder: string, problems: unknown[] = []): Promise<TokenStore> {
  const store = await TokenStore.open(folder, (error) => problems.push(error));
  onTestFinished(() => store.close());
  return store;
}

describe('TokenFileEditor', () => {
  it('adds, lists and removes, and keeps no secret', async () => {
    const folder = await temporaryFolder();
    const editor = new TokenFileEditor(folder, systemClock);
    const text = await editor.add(judge);
    expect(await editor.list()).toMatchObject([
      { name: 'judge', prefixes: ['/p'], rights: ['read', 'list'] },
    ]);
    expect(await readFile(join(folder, 'tokens.json'), 'utf8')).not.toContain(text.slice(11));
    expect((await openStore(folder)).book.holderOf(text)?.name).toBe('judge');
    await editor.remove('judge');
    expect(await editor.list()).toEqual([]);
    await expect(editor.remove('judge')).rejects.toMatchObject({ code: 'not-found' });
  });

  it('loses no token when several are added at once', async () => {
    const folder = await temporaryFolder();
    const names = Array.from({ length: 8 }, (_, index) => `token-${index}`);
    await Promise.all(names.map((name) => new TokenFileEditor(folder, systemClock).add({ ...judge, name })));
    const tokens = await new TokenFileEditor(folder, systemClock).list();
    expect(tokens.map(({ name }) => name).toSorted()).toEqual(names);
  });

  it.each<Partial<NewToken>>([
    { name: '' },
    { name: 'a:b' },
    { prefixes: [] },
    { prefixes: [''] },
    { prefixes: ['/a/../b'] },
    { prefixes: ['p'] },
    { rights: [] },
    { rights: ['list'] },
    { rights: ['admin'] },
  ])('refuses %j', async (wrong) => {
    const editor = new TokenFileEditor(await temporaryFolder(), systemClock);
    await expect(editor.add({ ...judge, ...wrong })).rejects.toMatchObject({ name: 'FiletrackerError' });
    expect(await editor.list()).toEqual([]);
  });

  it('refuses a second token of the same name', async () => {
    const editor = new TokenFileEditor(await temporaryFolder(), systemClock);
    await editor.add(judge);
    await expect(editor.add(judge)).rejects.toMatchObject({ code: 'invalid-argument' });
  });
});

describe('TokenStore', () => {
  it('sees a change of the file without being told', async () => {
    const folder = await temporaryFolder();
    const store = await openStore(folder);
    expect(store.configured).toBe(false);
    const editor = new TokenFileEditor(folder, systemClock);
    const text = await editor.add(judge);
    await vi.waitFor(() => expect(store.book.holderOf(text)?.name).toBe('judge'), { timeout: 60_000 });
    expect(store.configured).toBe(true);
    await editor.remove('judge');
    await vi.waitFor(() => expect(store.book.holderOf(text)).toBeUndefined(), { timeout: 60_000 });
    expect(store.configured).toBe(true);
  });

  it('keeps its tokens when the file is broken or gone, and says so', async () => {
    const folder = await temporaryFolder();
    const text = await new TokenFileEditor(folder, systemClock).add(judge);
    const problems: unknown[] = [];
    const store = await openStore(folder, problems);
    await writeFile(join(folder, 'tokens.json'), '{"format":1,"tokens":[{}]}');
    await store.reload();
    expect(problems.at(-1)).toMatchObject({ code: 'corrupt-store' });
    await rm(join(folder, 'tokens.json'));
    await store.reload();
    expect(problems.at(-1)).toMatchObject({ code: 'not-found' });
    expect(store.book.holderOf(text)?.name).toBe('judge');
  });

  it('stays closed when it starts without the file that it had', async () => {
    const folder = await temporaryFolder();
    const editor = new TokenFileEditor(folder, systemClock);
    expect(await editor.isOpenToAll()).toBe(true);
    await editor.add(judge);
    await editor.remove('judge');
    await rm(join(folder, 'tokens.json'));
    expect(await editor.isOpenToAll()).toBe(false);
    const problems: unknown[] = [];
    const store = await openStore(folder, problems);
    expect(store).toMatchObject({ configured: true, book: { lost: true, size: 0 } });
    expect(problems).toMatchObject([{ code: 'corrupt-store' }]);
    const text = await editor.add(judge);
    await store.reload();
    expect(store.book.lost).toBe(false);
    expect(store.book.holderOf(text)?.name).toBe('judge');
  });

  it('remembers tokens that an earlier release wrote', async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, 'tokens.json'), '{"format":1,"tokens":[]}');
    await Promise.all(Array.from({ length: 4 }, () => openStore(folder)));
    await rm(join(folder, 'tokens.json'));
    expect((await openStore(folder)).configured).toBe(true);
  });

  it('remembers tokens that appear while it is open', async () => {
    const folder = await temporaryFolder();
    const store = await openStore(folder);
    await writeFile(join(folder, 'tokens.json'), '{"format":1,"tokens":[]}');
    await store.reload();
    await rm(join(folder, 'tokens.json'));
    expect((await openStore(folder)).configured).toBe(true);
  });

  it('misses no change that comes at the moment of opening', async () => {
    const source = await temporaryFolder();
    const folder = await temporaryFolder();
    const text = await new TokenFileEditor(source, systemClock).add(judge);
    const file = await readFile(join(source, 'tokens.json'));
    // All threads of the pool are busy, so that a first look of a watch comes after the change.
    const opened = new AbortController();
    const busy = Array.from({ length: 16 }, async () => {
      while (!opened.signal.aborted) await promisify(pbkdf2)('a', 'b', 5000, 32, 'sha256');
    });
    const store = await openStore(folder);
    writeFileSync(join(folder, 'tokens.json'), file);
    opened.abort();
    await Promise.all(busy);
    await vi.waitFor(() => expect(store.book.holderOf(text)?.name).toBe('judge'), patience);
  });

  it('admits no client while the file cannot be read, and retries by itself', async () => {
    const folder = await temporaryFolder();
    const path = join(folder, 'tokens.json');
    const problems: unknown[] = [];
    const store = await openStore(folder, problems);
    // A folder stands for what a user may not read, as tests may run as root, who may.
    await mkdir(path);
    await vi.waitFor(() => expect(store.book.unread).toBe(true), patience);
    expect(store.configured).toBe(true);
    expect(problems).toMatchObject([{ code: 'io' }]);
    await rm(path, { recursive: true });
    const text = await new TokenFileEditor(folder, systemClock).add(judge);
    await vi.waitFor(() => expect(store.book.holderOf(text)?.name).toBe('judge'), patience);
    await rm(path);
    await mkdir(path);
    await store.reload();
    expect(store.book).toMatchObject({ unread: true, size: 0 });
    await rm(path, { recursive: true });
    await store.reload();
    expect(store).toMatchObject({ configured: true, book: { lost: true } });
  });

  it('admits no client while a first file is broken', async () => {
    const folder = await temporaryFolder();
    const problems: unknown[] = [];
    const store = await openStore(folder, problems);
    await writeFile(join(folder, 'tokens.json'), '{"format":1,');
    await store.reload();
    expect(store).toMatchObject({ configured: true, book: { unread: true } });
    expect(problems.at(-1)).toMatchObject({ code: 'corrupt-store' });
  });

  it('does not open over a file that it cannot read', async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, 'tokens.json'), 'no');
    await expect(openStore(folder)).rejects.toMatchObject({ code: 'corrupt-store' });
  });
});

describe('parseRights()', () => {
  it('reads words and refuses others', () => {
    expect(parseRights('read, write,read')).toEqual(['read', 'write']);
    expect(() => parseRights('read,fly')).toThrow(/fly/);
  });
});
