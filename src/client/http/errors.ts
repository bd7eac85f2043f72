import { FiletrackerError } from '../../core/errors.ts';
import { errorOfAnswer } from '../../protocol/problems.ts';
import { fromConnectionError } from './connection-errors.ts';
import { versionOf } from './responses.ts';
import type { HttpAnswer } from './exchange.ts';

/** Of a body that is for people so much is read. */
const textMaxBytes = 64 * 1024;
/** And so long: a byte now and then never times out. */
const textTimeMaxMs = 30_000;

/** What was asked, and of whom; for messages. */
export interface Asked {
  readonly action: string;
  /** The server as messages name it. */
  readonly peer: string;
  readonly signal?: AbortSignal | undefined;
  /** The server that redirected to `peer`, if one did. */
  readonly redirectedBy?: string | undefined;
}

/** The beginning of a body as text. @throws FiletrackerError where the connection fails. */
export async function textOf(answer: HttpAnswer, { action, peer, signal }: Asked): Promise<string> {
  const parts: Buffer[] = [];
  let sizeBytes = 0;
  const endless = new FiletrackerError('timeout', `Cannot ${action}: the response of ${peer} does not end`);
  const timer = setTimeout(() => void answer.body.destroy(endless), textTimeMaxMs);
  try {
    for await (const part of answer.body as AsyncIterable<Buffer>) {
      parts.push(part);
      sizeBytes += part.length;
      if (sizeBytes > textMaxBytes) break;
    }
  } catch (error) {
    throw fromConnectionError(error, action, peer, signal);
  } finally {
    clearTimeout(timer);
  }
  return Buffer.concat(parts).toString();
}

/** The error that an answer stands for, with what its headers and its body tell. */
export async function errorOf(answer: HttpAnswer, asked: Asked): Promise<FiletrackerError> {
  const { headers, status } = answer;
  const exceptionLine = headers['x-exception'];
  const code = headers['x-exception-code'];
  const error = errorOfAnswer(
    {
      status,
      contentType: headers['content-type'],
      exceptionLine: Array.isArray(exceptionLine) ? exceptionLine[0] : exceptionLine,
      ...(typeof code === 'string' && { code, version: versionOf(headers) }),
      retryAfter: headers['retry-after'],
      body: await textOf(answer, asked),
    },
    `${asked.action} at ${asked.peer}`,
  );
  const { peer, redirectedBy } = asked;
  if (redirectedBy === undefined || error.code !== 'unauthorized') return error;
  const { message, retryable, details } = error;
  const advice = `${redirectedBy} redirects to ${peer}, which gets no user name and password of it; use that address`;
  return new FiletrackerError(error.code, `${message} (${advice})`, { retryable, details });
}
