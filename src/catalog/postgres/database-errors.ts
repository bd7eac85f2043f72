import { cannot, isFiletrackerError, type FiletrackerError } from '../../core/errors.ts';

/** SQLSTATEs of a schema, table, column or function that is missing. */
export const missingStates: ReadonlySet<string> = new Set(['3F000', '42P01', '42703', '42883']);

/**
 * Classes of SQLSTATE that describe the condition of the database, not the statement: 08 connections, 25 the responses of
 * a stand-by, 28 and 3D log-in, 40 conflicts, 53 resources, 55 locks, 57 shut-down and time-outs, 58 system errors.
 */
const conditionClasses: ReadonlySet<string> = new Set(['08', '25', '28', '3D', '40', '53', '55', '57', '58']);

/** States with a text of their own; all of them pass, or are fixed by an operator. */
const knownStates: ReadonlyMap<string, string> = new Map([
  ['FT001', 'the session is not READ COMMITTED'],
  ['FT002', 'the upload was swept meanwhile; send it again'],
  ['42501', 'the role has too few rights in the database'],
  ['0A000', 'its tables were changed meanwhile'],
]);

export function sqlStateOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' && /^[0-9A-Z]{5}$/.test(error.code) ? error.code : undefined;
}

export function unavailable(action: string, state: string, cause: unknown): FiletrackerError {
  return cannot('unavailable', action, state, { cause, details: { retryAfterSeconds: 2 } });
}

/**
 * Translates an error of the driver. A wrong statement is a bug of this project and is returned as it is; an error without
 * SQLSTATE is a failure of the connection: refused, lost, or silent for too long.
 */
export function fromDatabaseError(error: unknown, action: string): unknown {
  if (isFiletrackerError(error) || error instanceof TypeError || error instanceof RangeError) return error;
  const state = sqlStateOf(error);
  if (state === undefined) return unavailable(action, 'PostgreSQL cannot be reached', error);
  if (state === '53100')
    return cannot('no-space', action, 'the disk of PostgreSQL is full', { cause: error });
  const known = knownStates.get(state);
  if (known !== undefined) return unavailable(action, known, error);
  if (missingStates.has(state)) return unavailable(action, 'its tables are missing, or some of them', error);
  if (!conditionClasses.has(state.slice(0, 2))) return error;
  return unavailable(action, `PostgreSQL responded with ${state}`, error);
}

/**
 * Why a call failed, in one word: the SQLSTATE if there is one. The driver distinguishes a silent database from a broken
 * connection by its text only, so the duration decides: nothing else takes as long as a response may.
 */
export function failureOf(error: unknown, tookWholeTime: boolean): string {
  const state = sqlStateOf(isFiletrackerError(error) ? error.cause : error);
  if (state !== undefined) return state;
  const code = isFiletrackerError(error) ? error.code : 'failure';
  return tookWholeTime && code === 'unavailable' ? 'timeout' : code;
}
