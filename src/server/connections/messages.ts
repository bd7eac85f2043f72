// What an Exchange needs of a request and of its response. node:http and the fast lane (fast-lane/) implement it.
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';

/** Header names and values in turn: the cheapest form that writeHead accepts. */
export type FlatHeaders = (string | number)[];

/** The head of a request. */
export interface RequestHead {
  readonly method?: string | undefined;
  readonly url?: string | undefined;
  /** By lower-case name. */
  readonly headers: IncomingHttpHeaders;
  /** Names and values in turn, as they came. */
  readonly rawHeaders: readonly string[];
  readonly httpVersion: string;
  readonly socket: Socket;
}

/** Is called when the system has taken bytes, or with the reason why it never will. */
type Taken = (error?: Error | null) => void;

/** Writes one response: its head once, then its body. */
export interface ResponseWriter {
  /** The head announces whether it is so. After a response without it the connection is closed. */
  shouldKeepAlive: boolean;
  readonly statusCode: number;
  /** Whether a head has been given. */
  readonly headersSent: boolean;
  /** Whether the system has taken all of the response; the event `finish` reports it. */
  readonly writableFinished: boolean;
  /** The head is written with the first piece of the body, or with the end. */
  writeHead(status: number, headers: FlatHeaders): unknown;
  write(piece: Uint8Array | string, done?: Taken): unknown;
  end(last?: Buffer | (() => void)): unknown;
  /** Closes the connection in the middle of a response. */
  destroy(): unknown;
  once(event: 'finish', listener: () => void): unknown;
  off(event: 'finish', listener: () => void): unknown;
  /** Sends 100. Only requests that came through node:http may wait for it. */
  writeContinue?(): void;
  /** Sends the head alone. Only requests that came through node:http may need it, while their body is not read. */
  flushHeaders?(): void;
}

/** A request and its response. */
export interface Message {
  readonly request: RequestHead;
  readonly response: ResponseWriter;
  /** The body: a stream, or all of its bytes if they came with the head. */
  readonly body: IncomingMessage | Buffer;
  /** Whether the client waits for a 100 before it sends the body. */
  readonly expectsContinue: boolean;
}
