import { Client } from 'pg';
import { describe, expect, it, onTestFinished } from 'vitest';
import { openTokenEditor, openTokens } from '../../src/runtime/open-tokens.ts';
import { readBackEndConfig } from '../../src/config/back-end-config.ts';
import type { NewToken } from '../../src/access/token.ts';
import type { TokenEditor, TokenSource } from '../../src/access/token-source.ts';
import { TokenFileEditor } from '../../src/access/token-store.ts';
import { systemClock } from '../../src/core/clock.ts';
import { freshSchema, postgresUrl } from '../support/engines.ts';
import { FaultProxy } from '../support/fault-proxy.ts';
import { run } from '../support/program.ts';
import { requestOnce } from '../support/raw-http.ts';
import { sharedPlace, type RunningServer } from '../support/scale-out-servers.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

/** It starts several programs, on a machine that may be busy. */
const slow = { timeout: 300_000 };

const judge: NewToken = { name: 'judge', prefixes: ['/p/'], rights: ['read', 'list'] };
/** Two looks of a server, and the work of a busy machine. */
const soon = { timeout: 5_000 };

/** The tokens of a fresh schema. */
function place() {
  const { schema, drop } = freshSchema();
  onTestFinished(drop);
  const backEnds = (url = postgresUrl()) =>
    readBackEndConfig({ catalog: `${url}?schema=${schema}`, catalogTimeout: '1s' }, {});
  return {
    schema,
    source: async (problems: unknown[] = [], options: { url?: string; folder?: string } = {}) => {
      const folder = options.folder ?? (await temporaryFolder());
      const where = { folder, backEnds: backEnds(options.url) };
      const source: TokenSource = await openTokens(where, (error) => problems.push(error));
      onTestFinished(() => source.close());
      return source;
    },
    editor: async (): Promise<TokenEditor> => {
      const editor = await openTokenEditor(
        { folder: '/nowhere', backEnds: backEnds() },
        { clock: systemClock, create: true },
      );
      onTestFinished(() => editor.close());
      return editor;
    },
    sql: async (text: string): Promise<void> => {
      const client = new Client({ connectionString: postgresUrl() });
      await client.connect();
      await client.query(text);
      await client.end();
    },
  };
}

describe('PostgresTokenEditor', () => {
  it('adds, lists and removes, and keeps no secret', async () => {
    const editor = await place().editor();
    expect(await editor.isOpenToAll()).toBe(true);
    const text = await editor.add({ ...judge, expiresAtMs: 4_000_000_000_000 });
    const [kept] = await editor.list();
    expect(kept).toMatchObject({ name: 'judge', prefixes: ['/p'], rights: ['read', 'list'] });
    expect(kept).toMatchObject({ expiresAtMs: 4_000_000_000_000 });
    expect(JSON.stringify(kept)).not.toContain(text.slice(11));
    await expect(editor.add(judge)).rejects.toMatchObject({ code: 'invalid-argument' });
    await editor.remove('judge');
    expect(await editor.list()).toEqual([]);
    expect(await editor.isOpenToAll()).toBe(false);
    await expect(editor.remove('judge')).rejects.toMatchObject({ code: 'not-found' });
  });

  it('loses no token when several are added at once', async () => {
    const { editor } = place();
    const names = Array.from({ length: 6 }, (_, index) => `token-${index}`);
    const editors = await Promise.all(names.map(() => editor()));
    await Promise.all(editors.map((each, index) => each.add({ ...judge, name: `token-${index}` })));
    expect((await (await editor()).list()).map(({ name }) => name).toSorted()).toEqual(names);
  });
});

describe('PostgresTokens', () => {
  it('sees a change without being told', async () => {
    const { editor, source } = place();
    const tokens = await source();
    expect(tokens).toMatchObject({ configured: false, book: { size: 0, unread: false } });
    const changing = await editor();
    const text = await changing.add(judge);
    await expect.poll(() => tokens.book.holderOf(text)?.name, soon).toBe('judge');
    expect(tokens.configured).toBe(true);
    await changing.remove('judge');
    await expect.poll(() => tokens.book.size, soon).toBe(0);
    expect(tokens).toMatchObject({ configured: true, book: { lost: false } });
  });

  it('keeps its tokens while the database is gone, and says so once', async () => {
    const { editor, source } = place();
    const proxy = await FaultProxy.open(postgresUrl());
    const changing = await editor();
    const text = await changing.add(judge);
    const problems: unknown[] = [];
    const url = `postgres://postgres@127.0.0.1:${proxy.port}/postgres`;
    const tokens = await source(problems, { url });
    proxy.set('refusal');
    await expect.poll(() => problems.length, soon).toBe(1);
    await tokens.reload();
    await tokens.reload();
    expect(problems).toMatchObject([{ code: 'unavailable' }]);
    expect(tokens.book.holderOf(text)?.name).toBe('judge');
    const other = await changing.add({ ...judge, name: 'other' });
    proxy.set('none');
    await expect.poll(() => tokens.book.holderOf(other)?.name, soon).toBe('other');
  });

  it('knows nobody, and turns nobody away, before it has read the tokens', async () => {
    const { source } = place();
    const proxy = await FaultProxy.open(postgresUrl());
    proxy.set('refusal');
    const problems: unknown[] = [];
    const url = `postgres://postgres@127.0.0.1:${proxy.port}/postgres`;
    const tokens = await source(problems, { url });
    expect(tokens).toMatchObject({ configured: true, book: { unread: true } });
    expect(problems).toMatchObject([{ code: 'unavailable' }]);
    proxy.set('none');
    await expect.poll(() => tokens.book.unread, soon).toBe(false);
    expect(tokens.configured).toBe(false);
  });

  it('is closed to all where its tokens are lost', async () => {
    const { schema, editor, source, sql } = place();
    const changing = await editor();
    const text = await changing.add(judge);
    const running = await source();
    await sql(`TRUNCATE ${schema}.token`);
    const problems: unknown[] = [];
    expect(await source(problems)).toMatchObject({ configured: true, book: { lost: true, size: 0 } });
    expect(problems).toMatchObject([{ code: 'corrupt-store' }]);
    await running.reload();
    expect(running.book.holderOf(text)?.name).toBe('judge');
    const other = await changing.add({ ...judge, name: 'other' });
    await running.reload();
    expect(running.book.holderOf(other)?.name).toBe('other');
    expect(running.book.holderOf(text)).toBeUndefined();
  });

  it('closes the store for all servers where a folder has tokens of its own, which nobody uses', async () => {
    const { source } = place();
    const first = await source();
    expect(first.configured).toBe(false);
    const folder = await temporaryFolder();
    await new TokenFileEditor(folder, systemClock).add(judge);
    expect(await source([], { folder })).toMatchObject({ configured: true, book: { size: 0 } });
    await expect.poll(() => first.configured, soon).toBe(true);
  });
});

async function statuses(servers: readonly RunningServer[], token?: string): Promise<number[]> {
  const headers = token === undefined ? {} : { Authorization: `Bearer ${token}` };
  const answers = servers.map(({ port }) => requestOnce(port, { target: '/list/', headers }));
  return (await Promise.all(answers)).map(({ status }) => status);
}

it('servers of one database answer alike, whichever was there when a token came or went', slow, async () => {
  const shared = await sharedPlace();
  const servers = await Promise.all([1, 2].map(() => shared.server()));
  expect(await statuses(servers)).toEqual([200, 200]);
  const token = async (...words: string[]) =>
    run('filetracker-server', 'token', ...words, '--catalog', shared.catalogUrl);
  const added = await token('add', 'judge', '--prefix', '/', '--rights', 'read,list');
  expect(added).toMatchObject({ code: 0, output: expect.stringMatching(/^ft_[\w-]{51}\n$/) });
  const text = added.output.trim();
  expect(await token('ls')).toMatchObject({ code: 0, output: expect.stringContaining('judge\t/\t') });
  await expect.poll(() => statuses(servers), soon).toEqual([401, 401]);
  expect(await statuses(servers, text)).toEqual([200, 200]);
  servers.push(await shared.server());
  expect(await statuses(servers, text)).toEqual([200, 200, 200]);
  expect(await token('rm', 'judge')).toMatchObject({
    code: 0,
    errors: expect.stringContaining('closed to all'),
  });
  await expect.poll(() => statuses(servers, text), soon).toEqual([401, 401, 401]);
  expect(await statuses(servers)).toEqual([401, 401, 401]);
});

it('a server that has not read its tokens asks to come again, and is alive', async () => {
  const shared = await sharedPlace();
  const proxy = await FaultProxy.open(postgresUrl());
  proxy.set('refusal');
  const catalogUrl = `postgres://postgres@127.0.0.1:${proxy.port}/postgres`;
  const server = await shared.server({ catalogUrl, args: ['--catalog-timeout', '1s'] });
  expect(await statuses([server])).toEqual([503]);
  expect(await statuses([server], 'unknown')).toEqual([503]);
  expect((await requestOnce(server.port, { target: '/healthz' })).status).toBe(200);
  proxy.set('none');
  await expect.poll(() => statuses([server]), soon).toEqual([200]);
});
