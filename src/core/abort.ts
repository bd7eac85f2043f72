import { FiletrackerError } from './errors.ts';

/** @throws FiletrackerError `aborted` if `signal` says so. `action` completes the sentence "Cannot …". */
export function throwIfAborted(signal: AbortSignal | undefined, action: string): void {
  if (signal?.aborted !== true) return;
  throw new FiletrackerError('aborted', `Cannot ${action}: it was aborted`, { cause: signal.reason });
}
