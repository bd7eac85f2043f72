import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { decodeChanges, encodeOutcomes } from '../../src/catalog/leader/batches.ts';
import { ChangeClient, ConnectionLost } from '../../src/catalog/leader/change-client.ts';
import { ChangeServer } from '../../src/catalog/leader/change-server.ts';
import { FrameReader, writeFrame, type Frame } from '../../src/catalog/leader/frames.ts';
import { LmdbCatalog } from '../../src/catalog/lmdb/lmdb-catalog.ts';
import { name, putOf, RecordingPlacer, textOf } from '../support/catalogs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

// During a hand-over a follower of one release may follow a leader of another.

const noEvents = { onDisconnect: () => undefined, onRebuild: () => undefined };

/** A leader in this process. */
async function leader(): Promise<{ path: string; catalog: LmdbCatalog; server: ChangeServer }> {
  const folder = await temporaryFolder();
  const folders = { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') };
  const catalog = await LmdbCatalog.open({ folders, placer: new RecordingPlacer() });
  const path = join(folder, 'socket');
  const server = await ChangeServer.listen(path, catalog, noEvents);
  onTestFinished(async () => {
    await server.close();
    await catalog.close();
  });
  return { path, catalog, server };
}

/** A leader that answers each frame with `respond`; resolves to a client of it and to the frames that arrived. */
async function scripted(
  respond: (socket: Socket, frame: Frame) => void,
): Promise<{ client: ChangeClient; frames: Frame[] }> {
  const frames: Frame[] = [];
  const path = join(await temporaryFolder(), 'socket');
  const server = createServer((socket) => {
    const reader = new FrameReader((frame) => {
      frames.push(frame);
      respond(socket, frame);
    });
    socket.on('data', (chunk: Buffer) => reader.push(chunk)).on('error', () => socket.destroy());
  });
  server.listen(path);
  await once(server, 'listening');
  const client = await ChangeClient.connect(path);
  if (client === undefined) throw new Error('no process listens');
  onTestFinished(() => {
    client.close();
    server.close();
  });
  return { client, frames };
}

async function connectedTo(path: string): Promise<ChangeClient> {
  const client = await ChangeClient.connect(path);
  if (client === undefined) throw new Error('no process listens');
  onTestFinished(() => client.close());
  await client.greet();
  return client;
}

function idOf(frame: Frame): number {
  return (frame.message as { id: number }).id;
}

describe('changes of a follower', () => {
  it('travel as one batch if the leader reads batches, in their order', async () => {
    const { client, frames } = await scripted((socket, frame) => {
      if (frame.message !== undefined) writeFrame(socket, { id: idOf(frame), result: { batches: 1 } });
      else {
        const outcomes = [...decodeChanges(frame.bytes)].map(({ id, kind, change }) => ({
          id,
          outcome:
            kind === 'put'
              ? ({ kind: 'stored', version: change.version, deduplicated: false } as const)
              : ({ kind: 'absent' } as const),
        }));
        socket.write(encodeOutcomes(outcomes.toReversed()));
      }
    });
    await client.greet();
    const made = await Promise.all([
      client.put(putOf('/a', 1, 'a')),
      client.remove({ name: name('/b'), version: 2 }),
      client.put(putOf('/c', 3, 'c')),
    ]);
    expect(made.map(({ kind }) => kind)).toEqual(['stored', 'absent', 'stored']);
    expect(frames).toHaveLength(2);
    const names = [...decodeChanges(frames[1]?.bytes ?? Buffer.alloc(0))].map(({ change }) => change.name);
    expect(names).toEqual(['/a', '/b', '/c']);
  });

  it('travel one by one to a leader of release 3.0, which does not state that it reads batches', async () => {
    const { client, frames } = await scripted((socket, frame) => {
      const { method } = frame.message as { method: string };
      const stored = { kind: 'stored', version: 1, deduplicated: false };
      writeFrame(socket, { id: idOf(frame), result: method === 'put' ? stored : null });
    });
    await client.greet();
    expect(await client.put(putOf('/a', 1, 'a'))).toMatchObject({ kind: 'stored', version: 1 });
    expect(frames.map(({ message }) => (message as { method: string }).method)).toEqual(['release', 'put']);
    expect(frames[1]?.bytes.toString()).toBe('a');
  });

  it('do not overtake the changes before them if they do not fit a batch', async () => {
    const { path, catalog } = await leader();
    const client = await connectedTo(path);
    const precondition = { kind: 'match', digests: [putOf('/a', 1, 'one').digest] } as const;
    const made = await Promise.all([
      client.put(putOf('/a', 1, 'one')),
      client.put(putOf('/a', 2, 'two', { precondition })),
      client.remove({ name: name('/a'), version: 1 }),
    ]);
    expect(made.map(({ kind }) => kind)).toEqual(['stored', 'stored', 'superseded']);
    expect(await textOf(catalog, '/a')).toBe('two');
  });

  it('are lost, not refused, if the connection ends before they are answered', async () => {
    const { client } = await scripted((socket, frame) => {
      if (frame.message === undefined) socket.destroy();
      else writeFrame(socket, { id: idOf(frame), result: { batches: 1 } });
    });
    await client.greet();
    const both = [client.put(putOf('/a', 1, 'a')), client.remove({ name: name('/b'), version: 1 })];
    for (const change of both) await expect(change).rejects.toBeInstanceOf(ConnectionLost);
    await expect(client.put(putOf('/c', 1, 'c'))).rejects.toBeInstanceOf(ConnectionLost);
  });
});

describe('a leader', () => {
  it('answers a follower of release 3.0 in JSON', async () => {
    const { path, catalog } = await leader();
    const socket = connect(path);
    onTestFinished(() => void socket.destroy());
    const frames: Frame[] = [];
    const answered = new Promise<void>((resolve) => {
      const reader = new FrameReader((frame) => {
        if (frames.push(frame) === 2) resolve();
      });
      socket.on('data', (chunk: Buffer) => reader.push(chunk));
    });
    const change = putOf('/a', 1, 'text');
    writeFrame(socket, { id: 1, method: 'release', digest: '' });
    writeFrame(
      socket,
      { id: 2, method: 'put', change: { ...change, content: { kind: 'inline' } } },
      Buffer.from('text'),
    );
    await answered;
    expect(frames.map(({ message }) => message)).toMatchObject([
      { id: 1, result: null },
      { id: 2, result: { kind: 'stored', version: 1, deduplicated: false } },
    ]);
    expect(await textOf(catalog, '/a')).toBe('text');
  });

  it('answers every change that it has received before it ends', async () => {
    const { path, server } = await leader();
    const client = await connectedTo(path);
    const puts = Array.from({ length: 50 }, (_, at) => client.put(putOf(`/f${at}`, 1, `text ${at}`)));
    // The answer to a later request shows that the leader has received those before it.
    await client.request({ method: 'release', digest: putOf('/f', 1, '').digest });
    await server.close();
    const made = await Promise.all(puts);
    expect(new Set(made.map(({ kind }) => kind))).toEqual(new Set(['stored']));
    await client.ended;
  });

  it('makes no change of a batch that has not arrived whole', async () => {
    const { path, catalog } = await leader();
    const client = await connectedTo(path);
    const socket = connect(path);
    // A frame that announces more than its sender lived to send.
    socket.end(Buffer.from([200, 0, 0, 0, 0, 0, 0, 0, 88, 0, 0, 0]));
    await once(socket.resume(), 'close');
    await client.put(putOf('/after', 1, 'after'));
    expect((await catalog.stats()).entries).toBe(1);
  });
});
