import { createReadStream } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { DigestMeter, type Digest } from '../core/digest.ts';

/** Pieces that the thread reads ahead of the consumer. */
const piecesAhead = 4;

/** The code of the thread. It is text, because it must start from the source, the library and a bundled program alike. */
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
// Requests for pieces that were sent ahead arrive after the end too: by then the descriptor's number may be another
// file's, from which a read would steal bytes.
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

export interface FileDigest {
  readonly digest: Digest;
  readonly sizeBytes: number;
}

type Message =
  | { readonly piece: Uint8Array }
  | { readonly passed: number }
  | { readonly end: FileDigest }
  | { readonly failure: { readonly code: string | undefined; readonly message: string } };

export interface DigestingReaderOptions {
  /** Bytes per piece; only the last is smaller. */
  readonly pieceSizeBytes: number;
  /** Reading ends shortly beyond this size, because the file is then not the expected one. */
  readonly sizeMaxBytes: number;
  readonly signal?: AbortSignal | undefined;
}

/** The digest of a file, computed on this thread. @throws system errors, and the reason of `signal`. */
export async function digestOfFile(path: string, signal?: AbortSignal): Promise<Digest> {
  const meter = new DigestMeter();
  const stream = createReadStream(path, { highWaterMark: 1024 * 1024, ...(signal ? { signal } : {}) });
  for await (const piece of stream) meter.update(piece as Buffer);
  return meter.finish();
}

/**
 * Reads a file once in a thread of its own, which computes the digest, and yields the pieces without copying them.
 * Calls `onEnd` after the last piece. @throws system errors, and the reason of `signal`.
 */
export async function* digestingPieces(
  path: string,
  options: DigestingReaderOptions & { readonly onEnd: (measure: FileDigest) => void },
): AsyncGenerator<Uint8Array> {
  for await (const message of messages(path, options, true)) {
    if ('piece' in message) yield message.piece;
    else if ('end' in message) options.onEnd(message.end);
  }
}

/** The digest of a file, computed in a thread of its own. `onPassed` receives the number of bytes of each piece. */
export async function digestInThread(
  path: string,
  options: DigestingReaderOptions & { readonly onPassed?: ((bytes: number) => void) | undefined },
): Promise<FileDigest> {
  for await (const message of messages(path, options, false)) {
    if ('passed' in message) options.onPassed?.(message.passed);
    else if ('end' in message) return message.end;
  }
  throw new Error('the reading thread ended without a digest');
}

/** Requests pieces, a few ahead, until the end. The thread is gone when this returns. */
async function* messages(
  path: string,
  { pieceSizeBytes, sizeMaxBytes, signal }: DigestingReaderOptions,
  wantsBytes: boolean,
): AsyncGenerator<Message> {
  signal?.throwIfAborted();
  const workerData = { path, pieceSizeBytes, sizeMaxBytes, wantsBytes };
  const worker = new Worker(workerSource, { eval: true, workerData, env: process.env, stdin: false });
  const request = (): void => worker.postMessage('next', []);
  const arrived: Message[] = [];
  let failure: { readonly reason: unknown } | undefined;
  let wake: (() => void) | undefined;
  const fail = (reason: unknown): void => {
    failure ??= { reason };
    wake?.();
  };
  const stop = (): void => fail(signal?.reason);
  worker.on('message', (message: Message) => {
    arrived.push(message);
    wake?.();
  });
  worker.once('error', fail);
  const gone = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
  signal?.addEventListener('abort', stop, { once: true });
  try {
    for (let ahead = 0; ahead < piecesAhead; ahead += 1) request();
    for (;;) {
      if (failure !== undefined) throw failure.reason;
      const message = arrived.shift();
      if (message === undefined) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        continue;
      }
      if ('failure' in message) throw Object.assign(new Error(message.failure.message), message.failure);
      yield message;
      if ('end' in message) return;
      request();
    }
  } finally {
    signal?.removeEventListener('abort', stop);
    void worker.terminate();
    await gone;
  }
}
