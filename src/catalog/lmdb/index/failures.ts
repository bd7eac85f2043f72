import { constants } from 'node:os';
import { FiletrackerError, isFiletrackerError } from '../../../core/errors.ts';
import { isFull } from '../../../fs/folders.ts';

/**
 * What the index holds was never written to it. It is `unavailable`, and so worth a retry, because the index is rebuilt
 * from the journal at its next opening.
 */
export class DamagedIndexError extends FiletrackerError {
  constructor(state: string) {
    super('unavailable', `Cannot read the catalog: ${state}; retry, the index is rebuilt from the journal`);
  }
}

/** The error of a row that is not one of ours. */
export function damagedRow(
  kind: 'entry' | 'blob' | 'removal' | 'unreferenced' | 'segment' | 'totals',
): DamagedIndexError {
  return new DamagedIndexError(`a row of its index is damaged (${kind})`);
}

/** The error of a change that may be found in the journal yet, and that the index does not show. */
export function outcomeUnknown(cause: unknown): FiletrackerError {
  const text = 'Cannot tell whether the change was made: the disk of the store fails; repeat it';
  return new FiletrackerError('unavailable', text, { cause });
}

export function diskFull(cause?: unknown): FiletrackerError {
  const text = 'Cannot change the catalog: the disk of the store is full';
  return new FiletrackerError('no-space', text, { cause });
}

/** The error of changes that were not made because the index in `folder` cannot be written at the moment. */
export function indexFailure(error: unknown, folder: string): FiletrackerError {
  // LMDB tells a write that was cut short by a full disk as EIO.
  if (isFiletrackerError(error, 'no-space') || isFull(folder)) return diskFull(error);
  const text = 'Cannot change the catalog: its index cannot be written';
  return new FiletrackerError('unavailable', text, { cause: error });
}

/** The error of a write that LMDB refused: what it throws carries the system's number, or one of its own below zero. */
export function indexWriteError(error: unknown): unknown {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'number') return error;
  const { ENOSPC, EDQUOT } = constants.errno;
  const full = error.code === ENOSPC || error.code === EDQUOT;
  const state = full ? 'the disk of the store is full' : 'the disk does not take it';
  const text = `Cannot write the index of the catalog: ${state}`;
  return new FiletrackerError(full ? 'no-space' : 'unavailable', text, { cause: error });
}
