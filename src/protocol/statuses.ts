import type { ErrorCode } from '../core/errors.ts';

/** The HTTP status of each error code; the only place that knows both. */
const statuses: Readonly<Record<ErrorCode, number>> = {
  'invalid-argument': 400,
  'invalid-name': 400,
  'invalid-version': 400,
  'invalid-digest': 400,
  'digest-mismatch': 400,
  'size-mismatch': 400,
  'corrupt-encoding': 400,
  'truncated-body': 400,
  'changed-during-upload': 400,
  // The legacy server returns 400 for a directory that never existed; its clients know no other status here.
  'not-a-directory': 400,
  unauthorized: 401,
  forbidden: 403,
  'not-found': 404,
  timeout: 408,
  'name-conflict': 409,
  // Sent with status 200, because existing clients know no other for it.
  removed: 409,
  'precondition-failed': 412,
  'too-large': 413,
  'unsupported-encoding': 415,
  'range-not-satisfiable': 416,
  'rate-limited': 429,
  aborted: 400,
  io: 500,
  'damaged-blob': 500,
  'corrupt-store': 500,
  protocol: 500,
  unreachable: 502,
  busy: 503,
  unavailable: 503,
  'store-locked': 503,
  'no-space': 507,
  'quota-exceeded': 507,
  'read-only': 507,
};

export function statusOf(code: ErrorCode): number {
  return statuses[code];
}

export function isErrorCode(text: unknown): text is ErrorCode {
  return typeof text === 'string' && Object.hasOwn(statuses, text);
}

/** The most likely code of a status, for responses without a code. */
const codes: ReadonlyMap<number, ErrorCode> = new Map<number, ErrorCode>([
  [400, 'invalid-argument'],
  [401, 'unauthorized'],
  [403, 'forbidden'],
  [404, 'not-found'],
  [408, 'timeout'],
  [409, 'name-conflict'],
  [412, 'precondition-failed'],
  [413, 'too-large'],
  [415, 'unsupported-encoding'],
  [416, 'range-not-satisfiable'],
  [429, 'rate-limited'],
  [502, 'unavailable'],
  [503, 'unavailable'],
  [504, 'unavailable'],
  [507, 'no-space'],
]);

/** The code for a status without one: its own, or that of its class. */
export function codeOfStatus(status: number): ErrorCode {
  const code = codes.get(status);
  if (code !== undefined) return code;
  if (status >= 500) return 'io';
  return status >= 400 ? 'invalid-argument' : 'protocol';
}

/** Seconds after which a retry makes sense, if the error has none. */
export const defaultRetryAfterSeconds: Readonly<Partial<Record<ErrorCode, number>>> = {
  busy: 1,
  'rate-limited': 1,
  unavailable: 5,
  'store-locked': 5,
};
