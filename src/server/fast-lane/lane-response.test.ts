import { Socket } from 'node:net';
import { describe, expect, it } from 'vitest';
import { LaneResponse, ResponseMemory } from './lane-response.ts';

function responseOn(socket: Socket): { readonly response: LaneResponse; readonly written: () => boolean } {
  let isWritten = false;
  const response = new LaneResponse({
    socket,
    memory: new ResponseMemory(),
    keepAliveLines: 'Connection: keep-alive\r\n',
    wrote: () => undefined,
    written: () => {
      isWritten = true;
    },
  });
  return { response, written: () => isWritten };
}

describe('LaneResponse', () => {
  it.each(['a\r\nSet-Cookie: b', 'a\nb', '\u010D\u010A', '\0', '\x7F'])(
    'refuses the header value %j before anything counts as sent',
    (value) => {
      const { response } = responseOn(new Socket());
      expect(() => response.writeHead(200, ['X-Name', value])).toThrow(TypeError);
      expect(response.headersSent).toBe(false);
      response.writeHead(500, ['X-Name', 'plain\té']);
      expect(response.headersSent).toBe(true);
    },
  );

  it('is not finished if its last write fails', async () => {
    const socket = new Socket();
    const failure = Object.assign(new Error('write EPIPE'), { code: 'EPIPE' });
    socket._write = (_bytes, _encoding, done) => done(failure);
    socket.on('error', () => undefined);
    const { response, written } = responseOn(socket);
    response.writeHead(200, ['Content-Length', '1']);
    const end = new Promise((resolve) => response.end((error) => resolve(error)));
    expect(await end).toBe(failure);
    expect([response.writableFinished, written()]).toEqual([false, false]);
  });
});
