import type { FiletrackerError } from '../core/errors.ts';
import { errorOfAnswer } from '../protocol/problems.ts';
import { versionOf } from './http-answers.ts';
import { fromConnectionError } from './http-connection.ts';
import type { HttpAnswer } from './http-connection.ts';
import type { ServerAddress } from './server-address.ts';

/** Of a body that is for people so much is read. */
const textMaxBytes = 64 * 1024;

/** What was asked, and of whom; for messages. */
export interface Asked {
  readonly action: string;
  readonly address: ServerAddress;
  readonly signal?: AbortSignal | undefined;
}

/** The beginning of a body as text. @throws FiletrackerError where the connection fails. */
export async function textOf(answer: HttpAnswer, { action, address, signal }: Asked): Promise<string> {
  const parts: Buffer[] = [];
  let sizeBytes = 0;
  try {
    for await (const part of answer.body as AsyncIterable<Buffer>) {
      parts.push(part);
      sizeBytes += part.length;
      if (sizeBytes > textMaxBytes) break;
    }
  } catch (error) {
    throw fromConnectionError(error, action, address, signal);
  }
  return Buffer.concat(parts).toString();
}

/** The error that an answer stands for, with what its headers and its body tell. */
export async function errorOf(answer: HttpAnswer, asked: Asked): Promise<FiletrackerError> {
  const { headers, status } = answer;
  const exceptionLine = headers['x-exception'];
  const code = headers['x-exception-code'];
  return errorOfAnswer(
    {
      status,
      contentType: headers['content-type'],
      exceptionLine: Array.isArray(exceptionLine) ? exceptionLine[0] : exceptionLine,
      ...(typeof code === 'string' && { code, version: versionOf(headers) }),
      retryAfter: headers['retry-after'],
      body: await textOf(answer, asked),
    },
    asked.action,
  );
}
