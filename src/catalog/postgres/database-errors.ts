import { FiletrackerError, isFiletrackerError } from '../../core/errors.ts';

/** Schema, table, column, function: what a statement names and is not there. */
export const missingStates: ReadonlySet<string> = new Set(['3F000', '42P01', '42703', '42883']);
const spaceStates: ReadonlySet<string> = new Set(['53100']);
/**
 * Classes of SQLSTATE that speak of the database's condition, not of the statement: 08 connections, 25 what a
 * stand-by answers, 28 and 3D log-in, 53 resources, 55 locks, 57 shut-down and time-outs, 58 system errors.
 */
const conditionClasses: ReadonlySet<string> = new Set(['08', '25', '28', '3D', '53', '55', '57', '58', '40']);

export function sqlStateOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' && /^[0-9A-Z]{5}$/.test(error.code) ? error.code : undefined;
}

export function unavailable(action: string, state: string, cause: unknown): FiletrackerError {
  return new FiletrackerError('unavailable', `Cannot ${action}: ${state}`, {
    cause,
    details: { retryAfterSeconds: 2 },
  });
}

/**
 * Translates what the driver throws. A statement that is wrong is our own bug and comes back as it is; what has
 * no SQLSTATE is the connection's failure: refused, lost, or silent for too long.
 */
export function fromDatabaseError(error: unknown, action: string): unknown {
  if (isFiletrackerError(error) || error instanceof TypeError || error instanceof RangeError) return error;
  const state = sqlStateOf(error);
  if (state === undefined) return unavailable(action, 'PostgreSQL cannot be reached', error);
  if (state === 'FT001') return unavailable(action, 'the session is not READ COMMITTED', error);
  if (state === 'FT002') return unavailable(action, 'the upload was swept meanwhile; send it again', error);
  if (spaceStates.has(state)) {
    return new FiletrackerError('no-space', `Cannot ${action}: the disk of PostgreSQL is full`, {
      cause: error,
    });
  }
  if (state === '42501') return unavailable(action, 'the role has too few rights in the database', error);
  if (state === '0A000') return unavailable(action, 'its tables were changed meanwhile', error);
  if (missingStates.has(state)) return unavailable(action, 'its tables are not there, or not all', error);
  if (conditionClasses.has(state.slice(0, 2)))
    return unavailable(action, `PostgreSQL answered ${state}`, error);
  return error;
}

/**
 * Why a call failed, in a word: SQLSTATE where the database said so. The driver tells a silent database from a broken
 * connection in its texts only, so that is told by the time: nothing else takes as long as an answer may.
 */
export function failureOf(error: unknown, tookWholeTime: boolean): string {
  const cause: unknown = isFiletrackerError(error) ? error.cause : error;
  const state = sqlStateOf(cause);
  if (state !== undefined) return state;
  const code = isFiletrackerError(error) ? error.code : 'failure';
  return tookWholeTime && code === 'unavailable' ? 'timeout' : code;
}
