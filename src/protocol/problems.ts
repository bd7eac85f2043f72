import { cannot, isFiletrackerError, type ErrorDetails, FiletrackerError } from '../core/errors.ts';
import { boundedText } from '../core/shown-text.ts';
import { jsonType, problemType } from './endpoints.ts';
import { namesType } from './quality.ts';
import { codeOfStatus, isErrorCode } from './statuses.ts';

/** The header with the text of an error, which the Python client shows to its user. */
export const exceptionHeader = 'X-Exception';

/** The header with the code of an error, for clients that do not read the body, or get none, as for a HEAD. */
export const exceptionCodeHeader = 'X-Exception-Code';

/** An error as `application/problem+json` (RFC 9457). */
export interface Problem extends ErrorDetails {
  /** The code identifies the problem; there is no page about it. */
  readonly type: 'about:blank';
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: string;
}

/** Everything but printable ASCII. Clients differ in where they end the line of a header. */
const notPrintable = /[^\u0020-\u007e]/gu;

function escapeCharacter(character: string): string {
  return [...Array(character.length).keys()]
    .map((index) => `\\u${character.charCodeAt(index).toString(16).padStart(4, '0')}`)
    .join('');
}

/**
 * The text of an error as one line of printable ASCII, fit for a header; other characters are escaped as `\u017c`. At
 * most 1 KiB, including escapes.
 */
export function asOneLine(message: string): string {
  return boundedText(boundedText(message).replace(notPrintable, escapeCharacter));
}

/** The body of an error response: the text alone, never a cause or a stack. */
export function describeProblem(error: FiletrackerError, status: number, title: string): Problem {
  const { message: detail, code, details } = error;
  return { ...details, type: 'about:blank', title, status, detail, code };
}

const jsonTypes = [problemType, jsonType];

/** Whether an error is sent as JSON: only if the client lists a JSON type. */
export function wantsProblem(accept: string | undefined): boolean {
  return namesType(accept, jsonTypes);
}

/** An error response, as a client sees it. */
export interface ErrorAnswer {
  readonly status: number;
  readonly contentType?: string | undefined;
  /** The X-Exception header. */
  readonly exceptionLine?: string | undefined;
  /** The X-Exception-Code header. */
  readonly code?: string | undefined;
  /** The version of the file, if the headers of the error have it. */
  readonly version?: number | undefined;
  /** The Retry-After header. */
  readonly retryAfter?: string | undefined;
  /** The beginning of the body, as text. */
  readonly body?: string | undefined;
}

/** Statuses after which a retry may succeed, if the server sends no code. */
const passingStatuses: ReadonlySet<number> = new Set([408, 429, 500, 502, 503, 504, 507]);

function parseProblem(answer: ErrorAnswer): Record<string, unknown> | undefined {
  const type = answer.contentType?.split(';')[0]?.trim().toLowerCase() ?? '';
  if (!jsonTypes.includes(type) || answer.body === undefined) return undefined;
  try {
    const parsed: unknown = JSON.parse(answer.body);
    return typeof parsed === 'object' && parsed !== null ? { ...parsed } : undefined;
  } catch {
    return undefined; // The status still tells what went wrong.
  }
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' && value.trim() !== '' ? value.trim() : undefined;
}

function numberOf(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined;
}

/**
 * The error of a server's response, on the client's side. `action` completes "Cannot …" if the server sent no text.
 */
export function errorOfAnswer(answer: ErrorAnswer, action: string): FiletrackerError {
  const problem = parseProblem(answer);
  const given = problem?.['code'] ?? answer.code;
  const code = isErrorCode(given) ? given : codeOfStatus(answer.status);
  const firstLine = answer.body?.trimStart().split('\n')[0];
  const plain = answer.contentType?.startsWith('text/plain') === true ? firstLine : undefined;
  const message = textOf(problem?.['detail']) ?? textOf(answer.exceptionLine) ?? textOf(plain);
  const name = textOf(problem?.['name']);
  const version = numberOf(problem?.['version']) ?? answer.version;
  const retryAfterSeconds = /^\d{1,6}$/.test(answer.retryAfter ?? '') ? Number(answer.retryAfter) : undefined;
  return new FiletrackerError(code, message ?? `Cannot ${action}: the server returned ${answer.status}`, {
    ...(!isErrorCode(given) && { retryable: passingStatuses.has(answer.status) }),
    details: {
      status: answer.status,
      ...(name !== undefined && { name }),
      ...(version !== undefined && { version }),
      ...(retryAfterSeconds !== undefined && { retryAfterSeconds }),
    },
  });
}

/**
 * The error that the client sees. Anything but a FiletrackerError is a bug, whose text may contain paths: it is
 * replaced, and `requestId` finds it in the log.
 */
export function publicError(error: unknown, requestId: string): FiletrackerError {
  if (isFiletrackerError(error)) return error;
  return cannot('io', 'answer the request', `the server failed (request ${requestId} in its log)`, {
    cause: error,
  });
}
