import type { Readable } from 'node:stream';
import { abortedError } from '../http/retries.ts';

/**
 * A stream that fails with `aborted`, and lets go of what it holds, as soon as `signal` says so, whether it is being read or
 * not. Its receiver has cancelled it: that nobody listens for the failure is no reason to end the process.
 */
export function cancellableStream(
  stream: Readable,
  action: string,
  signal: AbortSignal | undefined,
): Readable {
  if (signal === undefined) return stream;
  const cancel = (): void => {
    stream.once('error', () => undefined);
    stream.destroy(abortedError(action, signal.reason));
  };
  if (signal.aborted) cancel();
  else {
    signal.addEventListener('abort', cancel, { once: true });
    stream.once('close', () => signal.removeEventListener('abort', cancel));
  }
  return stream;
}
