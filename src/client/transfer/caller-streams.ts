// Streams that a caller passes in, or receives.
import { EventEmitter } from 'node:events';
import { Readable } from 'node:stream';
import { FiletrackerError } from '../../core/errors.ts';
import { unlessAborted } from '../../streams/chunks.ts';
import { kindOf } from '../arguments.ts';
import { abortedError } from '../../core/concurrency.ts';
import { fromLocalError } from '../local-errors.ts';

/**
 * The source of a put, piece by piece: bytes, or text, which is UTF-8.
 *
 * Invariant: the put owns the source from the start. It listens for a stream's failure at once, because an unhandled one
 * ends the process. However the put ends, it releases a source that was not read to its end, and does not wait for one
 * that stalls.
 */
export class PutSource implements Disposable {
  readonly #source: object;
  readonly #iterator: AsyncIterator<unknown>;
  #ended = false;

  /** @throws FiletrackerError `invalid-argument` if `source` has no pieces. */
  constructor(source: unknown) {
    if (!isPieces(source)) {
      throw new FiletrackerError(
        'invalid-argument',
        `Cannot put ${kindOf(source)}: it must be a stream or an iterable of pieces`,
      );
    }
    if (source instanceof EventEmitter) source.on('error', leaveToReader);
    this.#source = source;
    this.#iterator =
      Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : steps(source)[Symbol.asyncIterator]();
  }

  /**
   * The pieces; to be called once. `action` completes "Cannot …" in errors.
   * @throws FiletrackerError `aborted` as soon as `signal` is aborted; `invalid-argument` for a piece that is neither
   * bytes nor text; the error of the source.
   */
  async *pieces(action: string, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    for (;;) {
      const step = await this.#next(action, signal);
      if (step.done === true) return;
      yield bytesOf(step.value);
    }
  }

  async #next(action: string, signal: AbortSignal): Promise<IteratorResult<unknown>> {
    if (signal.aborted) throw abortedError(action, signal.reason);
    try {
      const step = await unlessAborted(this.#iterator.next(), signal);
      if (step.done === true) this.#ended = true;
      return step;
    } catch (error) {
      throw signal.aborted ? abortedError(action, error) : fromLocalError(error, action);
    }
  }

  [Symbol.dispose](): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#source instanceof Readable) this.#source.destroy();
    // A suspended generator returns only after what it awaits; the put does not wait for that.
    else this.#iterator.return?.().then(undefined, leaveToReader);
  }
}

/** A signal that fires with the first of two. */
export function eitherSignal(one: AbortSignal, other: AbortSignal | undefined): AbortSignal {
  return other === undefined ? one : AbortSignal.any([one, other]);
}

/** Reading the stream throws the same error. */
function leaveToReader(): void {
  // Nothing to do.
}

function isPieces(source: unknown): source is AsyncIterable<unknown> | Iterable<unknown> {
  if (typeof source !== 'object' || source === null || ArrayBuffer.isView(source)) return false;
  return Symbol.asyncIterator in source || Symbol.iterator in source;
}

async function* steps(source: Iterable<unknown>): AsyncGenerator {
  yield* source;
}

function bytesOf(piece: unknown): Uint8Array {
  if (typeof piece === 'string') return Buffer.from(piece);
  if (piece instanceof Uint8Array) return piece;
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot put a piece that is ${kindOf(piece)}: it must be bytes or text`,
  );
}

/**
 * A stream that fails with `aborted`, and releases its resources, as soon as `signal` is aborted, whether it is being
 * read or not. The receiver has cancelled it, so an unhandled failure must not end the process.
 */
export function cancellableStream(
  stream: Readable,
  action: string,
  signal: AbortSignal | undefined,
): Readable {
  if (signal === undefined) return stream;
  const cancel = (): void => {
    stream.once('error', leaveToReader);
    stream.destroy(abortedError(action, signal.reason));
  };
  if (signal.aborted) cancel();
  else {
    signal.addEventListener('abort', cancel, { once: true });
    stream.once('close', () => signal.removeEventListener('abort', cancel));
  }
  return stream;
}
