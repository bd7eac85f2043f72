import { constants } from 'node:os';
import { cannot, FiletrackerError, isFiletrackerError } from '../../../core/errors.ts';
import { isFull } from '../../../fs/folders.ts';

/**
 * The index holds bytes that were never written to it. The code is `unavailable`, and so worth a retry, because the index
 * is rebuilt from the journal at its next opening.
 */
export class DamagedIndexError extends FiletrackerError {
  constructor(state: string) {
    super('unavailable', `Cannot read the catalog: ${state}; retry, the index is rebuilt from the journal`);
  }
}

export function damagedRow(
  kind: 'entry' | 'blob' | 'removal' | 'unreferenced' | 'segment' | 'totals',
): DamagedIndexError {
  return new DamagedIndexError(`a row of its index is damaged (${kind})`);
}

/** The error of a change that may be in the journal and is not in the index. */
export function outcomeUnknown(cause: unknown): FiletrackerError {
  const state = 'the disk of the store fails; repeat the change';
  return cannot('unavailable', 'determine whether the change was made', state, { cause });
}

export function diskFull(cause?: unknown): FiletrackerError {
  return cannot('no-space', 'change the catalog', 'the disk of the store is full', { cause });
}

/** The error of changes that were not made because the index in `folder` cannot be written at the moment. */
export function indexFailure(error: unknown, folder: string): FiletrackerError {
  // LMDB reports a write that a full disk cut short as EIO.
  if (isFiletrackerError(error, 'no-space') || isFull(folder)) return diskFull(error);
  return cannot('unavailable', 'change the catalog', 'its index cannot be written', { cause: error });
}

/** The error of a write that LMDB refused: its `code` is an errno, or a number of LMDB's own below zero. */
export function indexWriteError(error: unknown): unknown {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'number') return error;
  const { ENOSPC, EDQUOT } = constants.errno;
  const full = error.code === ENOSPC || error.code === EDQUOT;
  const state = full ? 'the disk of the store is full' : 'the disk refuses the write';
  return cannot(full ? 'no-space' : 'unavailable', 'write the index of the catalog', state, { cause: error });
}
