import { Worker } from 'node:worker_threads';
import { parseDigest } from '../core/digest.ts';
import type { Digest } from '../core/digest.ts';

/** Pieces that are read ahead of whoever takes them. */
const piecesAhead = 4;

/**
 * What runs beside the main thread. It is text, and not a module of its own, because it must start from the
 * source, from the library and from a bundled program alike.
 */
const workerSource = `
const { parentPort, workerData } = require('node:worker_threads');
const { openSync, readSync, closeSync } = require('node:fs');
const { createHash } = require('node:crypto');
const { path, pieceSizeBytes, sizeMaxBytes, wantsBytes } = workerData;
const hash = createHash('sha256');
let descriptor;
let sizeBytes = 0;
let spare;
let ended = false;
function readPiece() {
  descriptor ??= openSync(path, 'r');
  const bytes = spare ?? new Uint8Array(pieceSizeBytes);
  let filled = 0;
  while (filled < bytes.length) {
    const count = readSync(descriptor, bytes, filled, bytes.length - filled, null);
    if (count === 0) break;
    filled += count;
  }
  sizeBytes += filled;
  const piece = bytes.subarray(0, filled);
  hash.update(piece);
  if (!wantsBytes) spare = bytes;
  if (filled === bytes.length && sizeBytes <= sizeMaxBytes) return piece;
  ended = true;
  closeSync(descriptor);
  if (filled > 0 && wantsBytes) parentPort.postMessage({ piece }, [piece.buffer]);
  parentPort.postMessage({ end: { digest: hash.digest('hex'), sizeBytes } });
  return undefined;
}
// Pieces are asked for ahead, so requests still come after the end: by then the descriptor's number may be that of
// another file, from which a read would steal bytes.
parentPort.on('message', () => {
  if (ended) return;
  try {
    const piece = readPiece();
    if (piece === undefined) parentPort.close();
    else if (wantsBytes) parentPort.postMessage({ piece }, [piece.buffer]);
    else parentPort.postMessage({ passed: piece.length });
  } catch (error) {
    ended = true;
    parentPort.postMessage({ failure: { code: error.code, message: error.message } });
    parentPort.close();
  }
});
`;

type Message =
  | { readonly piece: Uint8Array }
  | { readonly passed: number }
  | { readonly end: { readonly digest: string; readonly sizeBytes: number } }
  | { readonly failure: { readonly code: string | undefined; readonly message: string } };

export interface DigestingReaderOptions {
  /** Bytes of one piece; only the last is smaller. */
  readonly pieceSizeBytes: number;
  /** Reading ends a little beyond this size: the file is then not what it was taken for. */
  readonly sizeMaxBytes: number;
  readonly signal?: AbortSignal | undefined;
}

export interface FileDigest {
  readonly digest: Digest;
  readonly sizeBytes: number;
}

/**
 * Reads a file once in a thread of its own, which computes the digest, and hands the pieces over without
 * copying them. `onEnd` is given the digest before the last piece is followed by the end.
 * @throws system errors as they come, and what `signal` was aborted with.
 */
export async function* digestingPieces(
  path: string,
  options: DigestingReaderOptions & { readonly onEnd: (measure: FileDigest) => void },
): AsyncGenerator<Uint8Array> {
  for await (const message of messages(path, options, true)) {
    if ('piece' in message) yield message.piece;
    else if ('end' in message) options.onEnd(measureOf(message.end));
  }
}

/** The digest of a file, computed in a thread of its own. `onPassed` is told of bytes as they pass. */
export async function digestInThread(
  path: string,
  options: DigestingReaderOptions & { readonly onPassed?: ((bytes: number) => void) | undefined },
): Promise<FileDigest> {
  for await (const message of messages(path, options, false)) {
    if ('passed' in message) options.onPassed?.(message.passed);
    else if ('end' in message) return measureOf(message.end);
  }
  throw new Error('the reading thread ended without a digest');
}

function measureOf({
  digest,
  sizeBytes,
}: {
  readonly digest: string;
  readonly sizeBytes: number;
}): FileDigest {
  return { digest: parseDigest(digest), sizeBytes };
}

/** Asks for a piece at a time, a few ahead, until the end; the thread is gone when this returns. */
async function* messages(
  path: string,
  { pieceSizeBytes, sizeMaxBytes, signal }: DigestingReaderOptions,
  wantsBytes: boolean,
): AsyncGenerator<Message> {
  signal?.throwIfAborted();
  const workerData = { path, pieceSizeBytes, sizeMaxBytes, wantsBytes };
  const worker = new Worker(workerSource, { eval: true, workerData, env: process.env, stdin: false });
  const arrived: Message[] = [];
  const bell = new Bell();
  const stop = (): void => bell.fail(signal?.reason);
  worker.on('message', (message: Message) => {
    arrived.push(message);
    bell.ring();
  });
  worker.once('error', (error) => bell.fail(error));
  const gone = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
  signal?.addEventListener('abort', stop, { once: true });
  try {
    for (let ahead = 0; ahead < piecesAhead; ahead += 1) ask(worker);
    for (;;) {
      bell.throwIfFailed();
      const message = arrived.shift();
      if (message === undefined) {
        await bell.rung();
        continue;
      }
      if ('failure' in message) throw Object.assign(new Error(message.failure.message), message.failure);
      yield message;
      if ('end' in message) return;
      ask(worker);
    }
  } finally {
    signal?.removeEventListener('abort', stop);
    void worker.terminate();
    await gone;
  }
}

function ask(worker: Worker): void {
  worker.postMessage('next', []);
}

/** Lets one waiter sleep until something has happened since it last looked. */
class Bell {
  #ringing = Bell.#fresh();
  #failure: { readonly reason: unknown } | undefined;

  static #fresh(): { readonly promise: Promise<void>; readonly resolve: () => void } {
    let resolve = (): void => undefined;
    const promise = new Promise<void>((onRing) => {
      resolve = onRing;
    });
    return { promise, resolve };
  }

  ring(): void {
    this.#ringing.resolve();
  }

  /** For good, also where it has been rung and nobody has looked yet. */
  fail(reason: unknown): void {
    this.#failure ??= { reason };
    this.#ringing.resolve();
  }

  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.reason;
  }

  async rung(): Promise<void> {
    await this.#ringing.promise;
    this.#ringing = Bell.#fresh();
  }
}
