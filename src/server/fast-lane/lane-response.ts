import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { FlatHeaders, ResponseWriter } from '../connections/messages.ts';

/** A head with a longer body is not copied together with it. */
const copyMaxBytes = 16 * 1024;

const invalidInValue = /[^\t\x20-\x7e\x80-\xff]/;

type Taken = (error?: Error | null) => void;

/**
 * Memory for responses that are being written, for all connections.
 *
 * Invariant: its bytes belong to the system only while `write` of the socket runs. If the system does not take all of them
 * at once, the memory is left to the socket and replaced: 32 KiB for a connection whose client does not read. That
 * `writableLength` is 0 right after `write` proves that the socket keeps none of them; it does so for a plain socket, not
 * for one of TLS.
 */
export class ResponseMemory {
  #bytes = Buffer.allocUnsafeSlow(2 * copyMaxBytes);

  /** Writes a head and a body with one system call. `taken` is called when the system has both. */
  write(socket: Socket, head: string, body: Buffer | undefined, taken: Taken): void {
    const size = head.length + (body?.length ?? 0);
    if (size > this.#bytes.length) {
      socket.cork();
      socket.write(head, 'latin1');
      socket.write(body ?? '', taken);
      socket.uncork();
      return;
    }
    this.#bytes.write(head, 'latin1');
    if (body !== undefined) body.copy(this.#bytes, head.length);
    socket.write(this.#bytes.subarray(0, size), taken);
    if (socket.writableLength > 0) this.#bytes = Buffer.allocUnsafeSlow(2 * copyMaxBytes);
  }
}

/** The `Date` of responses, formatted once per second. */
class ResponseDate {
  #second = 0;
  #text = '';

  now(): string {
    const nowMs = Date.now();
    const second = Math.floor(nowMs / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#text = new Date(nowMs).toUTCString();
    }
    return this.#text;
  }
}

const date = new ResponseDate();

/** The connection of a response. */
export interface ResponseOwner {
  readonly socket: Socket;
  readonly memory: ResponseMemory;
  /** The lines of `Connection` and `Keep-Alive` while the connection stays open. */
  readonly keepAliveLines: string;
  /** Bytes have been written; the system may not have taken all of them. */
  wrote(): void;
  /** The system has taken the whole response. */
  written(response: LaneResponse): void;
}

/**
 * Writes a response as node:http does, byte for byte apart from the transfer coding: the lane serves only responses whose
 * length is known.
 */
export class LaneResponse implements ResponseWriter {
  shouldKeepAlive = true;
  statusCode = 0;
  writableFinished = false;
  readonly #owner: ResponseOwner;
  /** The head until it is written. */
  #head: string | undefined;
  #onFinish: (() => void) | undefined;

  constructor(owner: ResponseOwner) {
    this.#owner = owner;
  }

  get headersSent(): boolean {
    return this.statusCode !== 0;
  }

  writeHead(status: number, headers: FlatHeaders): void {
    let lines = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'unknown'}\r\n`;
    for (let index = 0; index < headers.length; index += 2) {
      const value = String(headers[index + 1]);
      // As node:http does. A character beyond Latin-1 would lose a byte, and could become a line end.
      if (invalidInValue.test(value))
        throw new TypeError(`Invalid character in the header ${headers[index]}`);
      lines += `${headers[index]}: ${value}\r\n`;
    }
    this.statusCode = status;
    const connection = this.shouldKeepAlive ? this.#owner.keepAliveLines : 'Connection: close\r\n';
    this.#head = `${lines}Date: ${date.now()}\r\n${connection}\r\n`;
  }

  write(piece: Uint8Array | string, done: Taken = () => undefined): void {
    const { socket } = this.#owner;
    const head = this.#takeHead();
    socket.cork();
    if (head !== undefined) socket.write(head, 'latin1');
    socket.write(piece, done);
    socket.uncork();
    this.#owner.wrote();
  }

  end(last?: Buffer | Taken): void {
    const body = Buffer.isBuffer(last) ? last : undefined;
    const done = typeof last === 'function' ? last : undefined;
    const { socket, memory } = this.#owner;
    memory.write(socket, this.#takeHead() ?? '', body, (error) => {
      // After a failed write the socket is destroyed only later.
      if (!error && !socket.destroyed) this.#finish();
      done?.(error);
    });
    this.#owner.wrote();
  }

  destroy(): void {
    this.#owner.socket.destroy();
  }

  /** There is one listener at most: the next request of the connection waits. */
  once(_event: 'finish', listener: () => void): void {
    this.#onFinish = listener;
  }

  off(_event: 'finish', listener: () => void): void {
    if (this.#onFinish === listener) this.#onFinish = undefined;
  }

  #takeHead(): string | undefined {
    const head = this.#head;
    this.#head = undefined;
    return head;
  }

  #finish(): void {
    this.writableFinished = true;
    this.#owner.written(this);
    this.#onFinish?.();
  }
}
