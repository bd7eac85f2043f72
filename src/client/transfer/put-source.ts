import { EventEmitter } from 'node:events';
import { Readable } from 'node:stream';
import { FiletrackerError } from '../../core/errors.ts';
import { unlessAborted } from '../../streams/chunks.ts';
import { kindOf } from '../arguments.ts';
import { fromLocalError } from '../local-errors.ts';
import { abortedError } from '../http/retries.ts';

/**
 * What a caller gives to be put, piece by piece: bytes, or text, which is UTF-8.
 *
 * Invariant: it is ours from the moment it is given. A stream's failure is listened for at once, because one that
 * nobody listens for ends the process; and what is not read to its end is let go of, however the put ends, without
 * waiting for a source that stands still.
 */
export class PutSource implements Disposable {
  readonly #source: object;
  readonly #iterator: AsyncIterator<unknown>;
  #ended = false;

  /** @throws FiletrackerError `invalid-argument` for what has no pieces. */
  constructor(source: unknown) {
    if (!isPieces(source)) {
      throw new FiletrackerError(
        'invalid-argument',
        `Cannot put ${kindOf(source)}: it must be a stream, or give its pieces one by one`,
      );
    }
    if (source instanceof EventEmitter) source.on('error', leaveToReader);
    this.#source = source;
    this.#iterator =
      Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : steps(source)[Symbol.asyncIterator]();
  }

  /**
   * The pieces; to be called once. `action` completes "Cannot …" in errors.
   * @throws FiletrackerError `aborted` as soon as `signal` says so, whatever the source does; `invalid-argument` for
   * a piece that is neither bytes nor text; what the source fails with.
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
    // A generator that waits for something returns when that has come, and nobody waits for it.
    else this.#iterator.return?.().then(undefined, leaveToReader);
  }
}

/** A signal that fires with the first of two. */
export function eitherSignal(one: AbortSignal, other: AbortSignal | undefined): AbortSignal {
  return other === undefined ? one : AbortSignal.any([one, other]);
}

/** The reading of a stream throws what it fails with. */
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
