import { isFiletrackerError, type ErrorCode } from '../core/errors.ts';

const codes: ReadonlySet<ErrorCode> = new Set([
  'damaged-blob',
  'digest-mismatch',
  'size-mismatch',
  'corrupt-encoding',
  'truncated-body',
]);

/** Whether copying a file failed because its content itself is bad where it comes from, which no repetition mends. */
export function isBadContent(error: unknown): boolean {
  return isFiletrackerError(error) && codes.has(error.code);
}
