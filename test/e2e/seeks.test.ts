import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { FiletrackerError } from '../../src/core/errors.ts';
import { seekFreeBytes } from '../../src/core/limits.ts';
import { RawConnection, requestBytes, requestOnce } from '../support/raw-http.ts';
import { openTestServer, openedBy } from '../support/test-server.ts';

const sizeBytes = 2 * seekFreeBytes;
const gzip = { 'Content-Encoding': 'gzip' };
const last = { Range: `bytes=${sizeBytes - 1}-` };

describe('parts far into a compressed content', () => {
  it('are unpacked for one request of a sender at a time', async () => {
    const sound = await openTestServer();
    await sound.put('/zeros', gzipSync(Buffer.alloc(sizeBytes)), { headers: gzip });
    let opened = 0;
    const letGo: (() => void)[] = [];
    const store = openedBy(sound.store, async (found, options) => {
      const file = await found.open(options);
      opened += 1;
      if (file === undefined || Buffer.isBuffer(file.body)) return file;
      const { body } = file;
      async function* heldBack(): AsyncGenerator<Uint8Array> {
        await new Promise<void>((resolve) => letGo.push(resolve));
        yield* body as AsyncIterable<Uint8Array>;
      }
      return { ...file, body: Readable.from(heldBack(), { objectMode: false }) };
    });
    const server = await openTestServer({ store });
    const answers = Array.from({ length: 5 }, () =>
      requestOnce(server.port, { target: '/files/zeros', headers: last }),
    );
    const gone = await RawConnection.open(server.port);
    gone.send(requestBytes({ target: '/files/zeros', headers: last }));
    // What begins near the start, and whole files, wait for nobody.
    await expect.poll(() => letGo.length).toBe(1);
    expect(
      (await server.request({ target: '/files/zeros', headers: { 'Accept-Encoding': 'gzip' } })).status,
    ).toBe(200);
    expect(opened).toBe(2);
    gone.socket.destroy();
    for (let count = 1; count <= 5; count += 1) {
      await expect.poll(() => letGo.length).toBe(1);
      expect(opened).toBe(count + 1);
      letGo.pop()?.();
    }
    for (const answer of await Promise.all(answers))
      expect(answer).toMatchObject({ status: 206, text: '\0' });
  });

  it('are answered with 500 if the content turns out to be damaged before they begin', async () => {
    const sound = await openTestServer();
    await sound.put('/zeros', gzipSync(Buffer.alloc(sizeBytes)), { headers: gzip });
    const store = openedBy(sound.store, async (found, options) => {
      const file = await found.open(options);
      const error = new FiletrackerError('damaged-blob', 'Cannot read the blob: its gzip stream is broken');
      const body = new Readable({ read: () => body.destroy(error) });
      return file && { ...file, body };
    });
    const server = await openTestServer({ store });
    expect((await server.request({ target: '/files/zeros', headers: last })).status).toBe(500);
  });
});
