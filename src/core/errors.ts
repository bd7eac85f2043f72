import { constants } from 'node:os';
import { boundedText } from './shown-text.ts';

/**
 * The kind of a failure, for programs to match. The protocol layer maps each code to an HTTP status, the command line
 * to an exit code; nothing else does.
 */
export type ErrorCode =
  // The caller's mistake.
  | 'invalid-argument'
  | 'invalid-name'
  | 'invalid-version'
  | 'invalid-digest'
  | 'digest-mismatch'
  | 'size-mismatch'
  | 'corrupt-encoding'
  | 'unsupported-encoding'
  | 'truncated-body'
  | 'too-large'
  | 'name-conflict'
  | 'not-found'
  /** The file was removed, in this version or a newer one, while its upload was retried. */
  | 'removed'
  | 'not-a-directory'
  | 'precondition-failed'
  | 'range-not-satisfiable'
  | 'unauthorized'
  | 'forbidden'
  | 'changed-during-upload'
  // The store's or the machine's state.
  | 'no-space'
  | 'quota-exceeded'
  | 'rate-limited'
  | 'busy'
  | 'unavailable'
  | 'read-only'
  | 'store-locked'
  | 'damaged-blob'
  | 'corrupt-store'
  | 'io'
  // The connection between client and server.
  | 'aborted'
  | 'timeout'
  | 'unreachable'
  | 'protocol';

/** Structured fields of an error; all of them are safe to show to a peer. */
export interface ErrorDetails {
  readonly name?: string;
  readonly version?: number;
  readonly digest?: string;
  readonly expected?: string | number;
  readonly actual?: string | number;
  /** HTTP status of a server's response, for errors of the client. */
  readonly status?: number;
  /** When a retry may succeed, in seconds. */
  readonly retryAfterSeconds?: number;
}

export interface ErrorOptions {
  readonly cause?: unknown;
  /** Whether the same call may succeed later without the caller changing it. */
  readonly retryable?: boolean;
  readonly details?: ErrorDetails;
}

const retryableCodes: ReadonlySet<ErrorCode> = new Set([
  'no-space',
  'rate-limited',
  'busy',
  'unavailable',
  'timeout',
  'unreachable',
  'truncated-body',
]);

const noDetails: ErrorDetails = {};

function boundedDetails(details: ErrorDetails): ErrorDetails {
  const bounded = Object.entries(details).map(([key, value]: [string, unknown]) => [
    key,
    typeof value === 'string' ? boundedText(value) : value,
  ]);
  return Object.fromEntries(bounded) as ErrorDetails;
}

/**
 * The only error class of this project. Match `code`, never the text. The text reads `Cannot <action> "<value>":
 * <state>; <what to do>` and never contains a path of the server or a stack, so that a peer may see it; the cause may
 * contain anything and stays in the process. No text is longer than 1 KiB.
 *
 * @example
 * ```ts
 * import { FiletrackerError } from 'filetracker';
 * import type { ErrorCode, ErrorDetails } from 'filetracker';
 *
 * const [code, details]: [ErrorCode, ErrorDetails] = ['busy', { retryAfterSeconds: 5 }];
 * const error = new FiletrackerError(code, 'Cannot judge "/a": the queue is full', { details });
 * console.log(error.retryable, error.details.retryAfterSeconds); // true 5
 * ```
 */
export class FiletrackerError extends Error {
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(boundedText(message), options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'FiletrackerError';
    this.code = code;
    this.retryable = options.retryable ?? retryableCodes.has(code);
    this.details = options.details === undefined ? noDetails : boundedDetails(options.details);
  }
}

/** The error with the text "Cannot <action>: <state>". Throw it: `throw cannot('busy', 'lock a file', '…')`. */
export function cannot(
  code: ErrorCode,
  action: string,
  state: string,
  options?: ErrorOptions,
): FiletrackerError {
  return new FiletrackerError(code, `Cannot ${action}: ${state}`, options);
}

/**
 * Whether `error` is a FiletrackerError, with this code if one is given.
 *
 * @example
 * ```ts
 * import { Client, isFiletrackerError } from 'filetracker';
 *
 * const client = Client.fromEnvironment();
 * try {
 *   await client.getFile('/examples/none', 'none.txt');
 * } catch (error) {
 *   if (!isFiletrackerError(error, 'not-found')) throw error;
 * }
 * await client.close();
 * ```
 */
export function isFiletrackerError(error: unknown, code?: ErrorCode): error is FiletrackerError {
  return error instanceof FiletrackerError && (code === undefined || error.code === code);
}

/** The errno code (`ENOENT`) of a system error; `undefined` for any other value. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return undefined;
  if (/^E[A-Z0-9]+$/.test(error.code)) return error.code;
  // Errors without a name in Node (EDQUOT, of disks with quotas) have the code "Unknown system error -122".
  const number = /^Unknown system error -(\d+)$/.exec(error.code)?.[1];
  if (number === undefined) return undefined;
  return Object.entries(constants.errno).find(([, value]) => value === Number(number))?.[0] ?? 'EUNKNOWN';
}

const spaceErrnos: ReadonlySet<string> = new Set(['ENOSPC', 'EDQUOT']);
const refusingErrnos: ReadonlySet<string> = new Set(['EACCES', 'EPERM']);
const passingErrnos: ReadonlySet<string> = new Set(['EMFILE', 'ENFILE', 'ENOMEM', 'EAGAIN', 'EBUSY']);

/**
 * Translates a file system error at the place where it occurs. `action` completes "Cannot …". Any other error is
 * returned unchanged.
 */
export function fromSystemError(error: unknown, action: string): unknown {
  const errno = errnoOf(error);
  if (errno === undefined || isFiletrackerError(error)) return error;
  const fail = (code: ErrorCode, state: string): FiletrackerError =>
    new FiletrackerError(code, `Cannot ${action}: ${state}`, { cause: error });
  if (spaceErrnos.has(errno)) return fail('no-space', 'the disk of the store is full');
  if (errno === 'EROFS') return fail('read-only', 'the file system of the store is read-only');
  if (passingErrnos.has(errno)) return fail('busy', `the system is out of a resource (${errno})`);
  if (refusingErrnos.has(errno)) {
    // Usually another user, such as root, has run a program on the store.
    return fail('io', `permission is denied (${errno}); if it belongs to another user, chown it`);
  }
  return fail('io', `the disk reports ${errno}`);
}

/** Errors of a disk that fails to read: a bad sector, a bad cable, a failed checksum of the file system. */
const mediumErrnos: ReadonlySet<string> = new Set(['EIO', 'EBADMSG']);

/**
 * The errno of a failed read of the disk; `undefined` for any other failure. Unreadable data is not known to be
 * wrong: a later read may succeed, so it must be neither removed nor overwritten.
 */
export function mediumErrnoOf(error: unknown): string | undefined {
  const errno = errnoOf(isFiletrackerError(error, 'io') ? error.cause : error);
  return errno !== undefined && mediumErrnos.has(errno) ? errno : undefined;
}

/**
 * The text of an error for users of this machine, never for a peer: with the path that the error's own text omits.
 */
export function localMessageOf(error: unknown): string {
  const message = messageOf(error);
  const cause: unknown = error instanceof Error ? error.cause : undefined;
  const path = refusedPathOf(cause);
  return typeof path !== 'string' || message.includes(path)
    ? message
    : boundedText(`${message} (${JSON.stringify(path)})`);
}

/** Copies, links and renames have two paths; the second one is written. */
function refusedPathOf(error: unknown): unknown {
  if (!(error instanceof Error)) return undefined;
  const errno = errnoOf(error) ?? '';
  if ('dest' in error && (spaceErrnos.has(errno) || errno === 'EROFS')) return error.dest;
  return 'path' in error ? error.path : undefined;
}

/** A short text for anything that was thrown. */
export function messageOf(error: unknown): string {
  return boundedText(error instanceof Error ? error.message : String(error));
}
