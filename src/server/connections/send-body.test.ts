import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { describe, expect, it, onTestFinished } from 'vitest';
import { noise } from '../../../test/support/contents.ts';
import { RawConnection, requestBytes, requestOnce } from '../../../test/support/raw-http.ts';
import { sendBody } from './send-body.ts';

const pieceSizeBytes = 256 * 1024;

/** Yields content in pieces, and overwrites each returned piece, as a source that reuses memory does. */
class Reusing extends Readable {
  given = 0;
  returned = 0;
  readonly #content: Buffer;

  constructor(content: Buffer) {
    super({ objectMode: true, highWaterMark: 1 });
    this.#content = content;
  }

  override _read(): void {
    const start = this.given * pieceSizeBytes;
    if (start >= this.#content.length) {
      this.push(null);
      return;
    }
    this.given += 1;
    this.push(Buffer.from(this.#content.subarray(start, start + pieceSizeBytes)));
  }

  giveBack(piece: Uint8Array): void {
    this.returned += 1;
    piece.fill(0);
  }
}

/** A server that answers with what `bodies` gives next; gives its port, and how the answers ended. */
async function serve(
  bodies: readonly (() => Readable)[],
): Promise<{ port: number; ends: readonly Promise<unknown>[] }> {
  const ends: Promise<unknown>[] = [];
  const server = createServer((request, response: ServerResponse) => {
    const body = bodies[ends.length]?.() ?? Readable.from([]);
    response.writeHead(200, { 'Content-Length': request.url?.slice(1) ?? '0' });
    const end = sendBody(body, response, request.socket).then(
      () => 'sent',
      (error: unknown) => {
        response.destroy();
        return error;
      },
    );
    ends.push(end);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, ends };
}

describe('sendBody()', () => {
  it('gives back every piece, and none before the system has it', async () => {
    const content = noise(20 * pieceSizeBytes + 77);
    const source = new Reusing(content);
    const { port, ends } = await serve([() => source]);
    const connection = await RawConnection.open(port);
    connection.pause();
    connection.send(requestBytes({ target: `/${content.length}` }));
    await expect.poll(() => source.returned).toBeGreaterThan(0);
    expect(source.returned).toBeLessThan(20);
    connection.resume();
    expect((await connection.answer()).body.equals(content)).toBe(true);
    expect(await ends[0]).toBe('sent');
    expect(source).toMatchObject({ given: 21, returned: 21, destroyed: true });
  });

  it('lets go of a body whose answer waits for another on a connection that goes', async () => {
    const [first, second] = [new Reusing(Buffer.alloc(30_000_000)), new Reusing(Buffer.alloc(30_000_000))];
    const { port, ends } = await serve([() => first, () => second]);
    const connection = await RawConnection.open(port);
    connection.pause();
    connection.send(
      Buffer.concat([requestBytes({ target: '/30000000' }), requestBytes({ target: '/30000000' })]),
    );
    await expect.poll(() => ends.length).toBe(2);
    connection.socket.destroy();
    const cut = { code: 'ERR_STREAM_PREMATURE_CLOSE' };
    expect(await Promise.all(ends)).toEqual([expect.objectContaining(cut), expect.objectContaining(cut)]);
    expect([first.destroyed, second.destroyed]).toEqual([true, true]);
  });

  it('lets go of a body whose connection has gone already', async () => {
    const source = new Reusing(noise(1000));
    const { port, ends } = await serve([() => source]);
    const connection = await RawConnection.open(port);
    connection.send(requestBytes({ target: '/1000' }));
    expect((await connection.answer()).status).toBe(200);
    const response = { write: () => expect.fail('written'), end: () => expect.fail('ended') };
    const late = new Reusing(noise(1000));
    connection.socket.destroy();
    await expect(
      sendBody(late, response as unknown as ServerResponse, connection.socket),
    ).rejects.toMatchObject({ code: 'ERR_STREAM_PREMATURE_CLOSE' });
    expect(late.destroyed).toBe(true);
    expect(await ends[0]).toBe('sent');
  });

  it('fails with a body that fails', async () => {
    async function* broken(): AsyncGenerator<Buffer> {
      yield noise(100_000);
      throw new Error('it broke');
    }
    const { port, ends } = await serve([() => Readable.from(broken())]);
    await expect(requestOnce(port, { target: '/200000' })).rejects.toThrow('the server closed');
    expect(await ends[0]).toMatchObject({ message: 'it broke' });
  });
});
