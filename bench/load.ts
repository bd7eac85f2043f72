import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

const headerEnd = Buffer.from('\r\n\r\n');

/**
 * A lean HTTP/1.1 client on one kept-alive connection: it sends bytes that were made before and reads just
 * enough of an answer to know where it ends, so that a load takes as little as can be from the cores that the
 * server needs too.
 */
class Connection {
  readonly #socket: Socket;
  readonly #chunks: AsyncIterator<Buffer>;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#chunks = socket[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  }

  static async open(port: number): Promise<Connection> {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true });
    await once(socket, 'connect');
    return new Connection(socket);
  }

  /** Sends a request and reads its answer; gives status and size of the body. */
  async exchange(request: Buffer, head = false): Promise<{ status: number; size: number }> {
    this.#socket.write(request);
    let bytes = await this.#next();
    let end = bytes.indexOf(headerEnd);
    while (end === -1) {
      bytes = Buffer.concat([bytes, await this.#next()]);
      end = bytes.indexOf(headerEnd);
    }
    const header = bytes.toString('latin1', 0, end);
    const status = Number(header.slice(9, 12));
    let received = bytes.length - end - headerEnd.length;
    const length = /\r\ncontent-length: *(\d+)/i.exec(header);
    if (length?.[1] !== undefined) {
      const size = head ? 0 : Number(length[1]);
      while (received < size) received += (await this.#next()).length;
      return { status, size };
    }
    // A chunked answer: it has ended when its last bytes are the empty chunk.
    let tail = bytes.subarray(-5);
    while (tail.toString('latin1') !== '0\r\n\r\n') {
      const chunk = await this.#next();
      received += chunk.length;
      tail = Buffer.concat([tail, chunk.subarray(-5)]).subarray(-5);
    }
    return { status, size: received };
  }

  close(): void {
    this.#socket.destroy();
  }

  async #next(): Promise<Buffer> {
    const result = await this.#chunks.next();
    if (result.done === true) throw new Error('the server ended the connection');
    return result.value;
  }
}

export interface LoadResult {
  readonly count: number;
  readonly milliseconds: number;
  /** Bytes of all bodies received. */
  readonly bytes: number;
}

/**
 * Sends `count` requests, `atOnce` of them under way at any time; each must be answered with `status`. With `closes` the
 * server closes after each answer, as after one to a request whose body it did not want, and the next goes over a new one.
 */
export async function load(
  port: number,
  atOnce: number,
  count: number,
  request: (index: number) => Buffer,
  options: { head?: boolean; status?: number; closes?: boolean } = {},
): Promise<LoadResult> {
  const connections = await Promise.all(Array.from({ length: atOnce }, () => Connection.open(port)));
  const expected = options.status ?? 200;
  let next = 0;
  let bytes = 0;
  const started = performance.now();
  await Promise.all(
    connections.map(async (first, place) => {
      let connection = first;
      while (next < count) {
        const { status, size } = await connection.exchange(request(next++), options.head);
        if (options.closes === true) {
          connection.close();
          connection = await Connection.open(port);
          connections[place] = connection;
        }
        if (status !== expected) throw new Error(`the server answered with ${status}`);
        bytes += size;
      }
    }),
  );
  const milliseconds = performance.now() - started;
  for (const connection of connections) connection.close();
  return { count, milliseconds, bytes };
}

export function getRequest(path: string, headers = '', method = 'GET'): Buffer {
  return Buffer.from(`${method} ${path} HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n`);
}

export function putRequest(path: string, body: Buffer, headers = ''): Buffer {
  const date = encodeURIComponent('Sun, 22 Nov 2026 15:05:01 GMT');
  const head = `PUT ${path}?last_modified=${date} HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\n${headers}\r\n`;
  return Buffer.concat([Buffer.from(head), body]);
}
