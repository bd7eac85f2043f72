import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';

/** An answer as it came over the wire. */
export interface RawAnswer {
  readonly status: number;
  /** By lower-case name. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: Buffer;
  readonly text: string;
}

export interface RawRequest {
  readonly method?: string;
  readonly target: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer | string;
}

const headEnd = Buffer.from('\r\n\r\n');

/** The bytes of a request; Content-Length is added where there is a body and no framing is given. */
export function requestBytes(request: RawRequest): Buffer {
  const { method = 'GET', target, headers = {}, body } = request;
  const bytes = Buffer.from(body ?? '');
  const lines = [`${method} ${target} HTTP/1.1`, 'Host: localhost'];
  const framed = Object.keys(headers).some((name) => /^(content-length|transfer-encoding)$/i.test(name));
  if (body !== undefined && !framed) lines.push(`Content-Length: ${bytes.length}`);
  for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${value}`);
  return Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), bytes]);
}

/** A client that sends exactly the bytes it is given; destroyed when the test is over. */
export class RawConnection {
  readonly socket: Socket;
  #received: Buffer = Buffer.alloc(0);
  #ended = false;
  #paused = false;
  #wake: () => void = () => undefined;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('readable', () => this.#read());
    const over = (): void => {
      this.#ended = true;
      this.#wake();
    };
    socket.on('end', over).on('close', over).on('error', over);
  }

  #read(): void {
    if (this.#paused) return;
    for (let piece: unknown = this.socket.read(); Buffer.isBuffer(piece); piece = this.socket.read()) {
      this.#received = Buffer.concat([this.#received, piece]);
    }
    this.#wake();
  }

  /** Leaves in the system's buffers what comes, until `resume`. */
  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#read();
  }

  static async open(port: number): Promise<RawConnection> {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true });
    await once(socket, 'connect');
    onTestFinished(() => void socket.destroy());
    return new RawConnection(socket);
  }

  send(bytes: Buffer | string): void {
    this.socket.write(bytes);
  }

  /** Waits until so many bytes have come; fails where the server closes before. */
  async #need(sizeBytes: number): Promise<void> {
    while (this.#received.length < sizeBytes) {
      if (this.#ended) {
        const beginning = JSON.stringify(this.#received.toString('latin1', 0, 200));
        throw new Error(`the server closed after ${this.#received.length} bytes: ${beginning}`);
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  #take(sizeBytes: number): Buffer {
    const taken = this.#received.subarray(0, sizeBytes);
    this.#received = this.#received.subarray(sizeBytes);
    return taken;
  }

  async #takeThrough(mark: Buffer): Promise<Buffer> {
    for (let wanted = mark.length; ; wanted = this.#received.length + 1) {
      await this.#need(wanted);
      const at = this.#received.indexOf(mark);
      if (at !== -1) return this.#take(at + mark.length);
    }
  }

  async #takeChunked(): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for (;;) {
      const size = Number.parseInt((await this.#takeThrough(Buffer.from('\r\n'))).toString(), 16);
      await this.#need(size + 2);
      pieces.push(this.#take(size + 2).subarray(0, size));
      if (size === 0) return Buffer.concat(pieces);
    }
  }

  /** Reads one answer, an interim one (100) too. `method` tells whether a body follows. */
  async answer(method = 'GET'): Promise<RawAnswer> {
    const [statusLine = '', ...lines] = (await this.#takeThrough(headEnd)).toString('latin1').split('\r\n');
    const status = Number(statusLine.split(' ')[1]);
    const headers = new Map<string, string>();
    for (const line of lines.filter((text) => text !== '')) {
      const colon = line.indexOf(':');
      headers.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim());
    }
    let body: Buffer = Buffer.alloc(0);
    const bodiless = method === 'HEAD' || status < 200 || status === 204 || status === 304;
    if (!bodiless && headers.get('transfer-encoding') === 'chunked') body = await this.#takeChunked();
    else if (!bodiless) {
      const size = Number(headers.get('content-length') ?? 0);
      await this.#need(size);
      body = this.#take(size);
    }
    return { status, headers, body, text: body.toString() };
  }

  async request(request: RawRequest): Promise<RawAnswer> {
    this.send(requestBytes(request));
    return this.answer(request.method);
  }

  /** Resolves when the server has closed its side; gives what it sent before. */
  async closed(): Promise<Buffer> {
    while (!this.#ended) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#received;
  }
}

/** One request over a connection of its own. */
export async function requestOnce(port: number, request: RawRequest): Promise<RawAnswer> {
  const connection = await RawConnection.open(port);
  const answer = await connection.request(request);
  connection.socket.destroy();
  return answer;
}
