import { rm } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import type { Catalog } from '../../src/catalog/catalog.ts';
import { LmdbCatalog } from '../../src/catalog/lmdb/lmdb-catalog.ts';
import { ChangeClient } from '../../src/catalog/leader/change-client.ts';
import { ChangeServer } from '../../src/catalog/leader/change-server.ts';
import { SharedCatalog } from '../../src/catalog/leader/shared-catalog.ts';
import { socketPathIn } from '../../src/catalog/leader/change-server.ts';
import { name, putOf, RecordingPlacer, textOf } from '../support/catalogs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

// A leader dies after it has made a change of another process and before it has answered. Until that process asks
// the next leader, others have changed the name.

type Dying = 'put' | 'remove' | 'put unmade' | 'remove unmade';

/**
 * A catalog that follows a leader. At its next change the leader dies, with the change made or not, and `meanwhile`
 * happens before the next one listens.
 */
async function follower(
  before: (catalog: LmdbCatalog) => Promise<unknown>,
  dying: Dying,
  meanwhile: (catalog: LmdbCatalog) => Promise<unknown>,
): Promise<SharedCatalog> {
  const folder = await temporaryFolder();
  const folders = { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') };
  const placer = new RecordingPlacer();
  const catalog = await LmdbCatalog.open({ folders, placer });
  await before(catalog);
  const { path } = await socketPathIn(folders.journal);
  const leaders: ChangeServer[] = [];
  const connections: Socket[] = [];
  const listen = async (served: Catalog): Promise<void> => {
    leaders.push(
      await ChangeServer.listen(`${path}.behind`, served, {
        onDisconnect: () => undefined,
        onRebuild: () => undefined,
      }),
    );
  };
  // Stands before the leader, as only a process that dies breaks its connections off.
  const front = createServer((socket) => {
    const behind = connect(`${path}.behind`);
    socket.pipe(behind).pipe(socket);
    for (const [end, other] of [
      [socket, behind],
      [behind, socket],
    ] as const) {
      end.on('error', () => undefined).on('close', () => other.destroy());
    }
    connections.push(socket);
  }).listen(path);
  const die = async (change: () => Promise<unknown>): Promise<never> => {
    if (!dying.endsWith('unmade')) await change();
    await rm(`${path}.behind`);
    for (const connection of connections) connection.destroy();
    await meanwhile(catalog);
    await listen(catalog);
    return new Promise(() => undefined);
  };
  const [method] = dying.split(' ');
  await listen(
    new Proxy<Catalog>(catalog, {
      get: (target, property) => {
        if (property === 'put' && method === 'put') return (change: never) => die(() => target.put(change));
        if (property === 'remove' && method === 'remove')
          return (change: never) => die(() => target.remove(change));
        const value: unknown = Reflect.get(target, property);
        return typeof value === 'function' ? (value.bind(target) as unknown) : value;
      },
    }),
  );
  const following = await SharedCatalog.open({ folders, placer });
  onTestFinished(async () => {
    await following.close();
    front.close();
    for (const leader of leaders.slice(1)) await leader.close();
    await catalog.close();
  });
  return following;
}

const nothing = async (): Promise<void> => undefined;
const a = name('/a');

describe('a change that is asked for again because its leader died', () => {
  it('is not made again over a put that came after it', async () => {
    const catalog = await follower(
      (leading) => leading.put(putOf('/a', 3, 'three')),
      'remove',
      (leading) => leading.put(putOf('/a', 4, 'four')),
    );
    expect(await catalog.remove({ name: a, version: 7 })).toEqual({ kind: 'removed', version: 3 });
    expect(await textOf(catalog, '/a')).toBe('four');
  });

  it('does not bring back what was removed after it', async () => {
    const catalog = await follower(nothing, 'put', (leading) => leading.remove({ name: a, version: 5 }));
    expect(await catalog.put(putOf('/a', 5, 'five'))).toMatchObject({ kind: 'stored', version: 5 });
    expect(await catalog.find(a)).toBeUndefined();
  });

  it('does not bring back what was removed before and again after it', async () => {
    const catalog = await follower(
      async (leading) => {
        await leading.put(putOf('/a', 5, 'before'));
        await leading.remove({ name: a, version: 5 });
      },
      'put',
      (leading) => leading.remove({ name: a, version: 5 }),
    );
    expect(await catalog.put(putOf('/a', 5, 'five'))).toMatchObject({ kind: 'stored', version: 5 });
    expect(await catalog.find(a)).toBeUndefined();
  });

  it('is made over an older version than was removed before it', async () => {
    const catalog = await follower(
      async (leading) => {
        await leading.put(putOf('/a', 9, 'nine'));
        await leading.remove({ name: a, version: 9 });
      },
      'put unmade',
      nothing,
    );
    expect(await catalog.put(putOf('/a', 5, 'five'))).toMatchObject({ kind: 'stored', version: 5 });
    expect(await textOf(catalog, '/a')).toBe('five');
  });

  it('does not take the place of another content of its version that came after it', async () => {
    const catalog = await follower(nothing, 'put', (leading) => leading.put(putOf('/a', 5, 'other')));
    expect(await catalog.put(putOf('/a', 5, 'five'))).toMatchObject({ kind: 'stored', version: 5 });
    expect(await textOf(catalog, '/a')).toBe('other');
  });

  it('tells that it was made although its precondition holds no more', async () => {
    const catalog = await follower(nothing, 'put', nothing);
    const change = putOf('/a', 5, 'five', { precondition: { kind: 'absent' } });
    expect(await catalog.put(change)).toMatchObject({ kind: 'stored', version: 5 });
    const removing = await follower((leading) => leading.put(change), 'remove', nothing);
    const precondition = { kind: 'match', digests: [change.digest] } as const;
    expect(await removing.remove({ name: a, version: 5, precondition })).toEqual({
      kind: 'removed',
      version: 5,
    });
  });

  it('is made where it was not', async () => {
    const putting = await follower(
      (leading) => leading.put(putOf('/a', 5, 'other')),
      'put unmade',
      (leading) => leading.put(putOf('/b', 1, 'other')),
    );
    expect(await putting.put(putOf('/a', 5, 'five'))).toMatchObject({ kind: 'stored', version: 5 });
    expect(await textOf(putting, '/a')).toBe('five');
    const overOlder = await follower(nothing, 'put unmade', (leading) => leading.put(putOf('/a', 4, 'four')));
    expect(await overOlder.put(putOf('/a', 5, 'five'))).toMatchObject({ kind: 'stored', version: 5 });
    expect(await textOf(overOlder, '/a')).toBe('five');
    const removing = await follower(
      (leading) => leading.put(putOf('/a', 3, 'three')),
      'remove unmade',
      nothing,
    );
    expect(await removing.remove({ name: a, version: 7 })).toEqual({ kind: 'removed', version: 3 });
    expect(await removing.find(a)).toBeUndefined();
  });
});

describe('ChangeServer.close()', () => {
  it('answers the changes that it has taken', async () => {
    const folder = await temporaryFolder();
    const folders = { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') };
    const placer = new RecordingPlacer();
    const leader = await SharedCatalog.open({ folders, placer });
    const { path } = await socketPathIn(folders.journal);
    const client = (await ChangeClient.connect(path)) ?? expect.unreachable();
    const put = vi.spyOn(LmdbCatalog.prototype, 'put');
    const answer = client.request({ method: 'put', change: putOf('/a', 1, 'text') });
    await vi.waitUntil(() => put.mock.calls.length > 0, { interval: 0 });
    put.mockRestore();
    await leader.close();
    expect(await answer).toMatchObject({ kind: 'stored', version: 1 });
    await client.ended;
  });
});
