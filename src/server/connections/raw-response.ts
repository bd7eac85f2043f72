import { exceptionHeader } from '../../protocol/problems.ts';

/** What is wrong with bytes that are no request, by Node's code for it. */
const refusals: ReadonlyMap<string, readonly [status: string, text: string]> = new Map([
  ['HPE_HEADER_OVERFLOW', ['431 Request Header Fields Too Large', 'the headers are too long']],
  ['HPE_CHUNK_EXTENSIONS_OVERFLOW', ['413 Payload Too Large', 'the chunk extensions are too long']],
  ['ERR_HTTP_REQUEST_TIMEOUT', ['408 Request Timeout', 'the headers did not arrive in time']],
]);
const badRequest = ['400 Bad Request', 'it is not valid HTTP/1.1'] as const;

/** Status and text for bytes that Node's parser gave up with `code`. */
export function refusalOf(code: string): readonly [status: string, text: string] {
  return refusals.get(code) ?? badRequest;
}

/** An answer where there is no request that Node would answer. */
export function rawAnswer(status: string, line: string, headers: readonly string[] = []): string {
  const all = [
    `HTTP/1.1 ${status}`,
    'Content-Type: text/plain',
    `Content-Length: ${line.length + 1}`,
    `${exceptionHeader}: ${line}`,
    'Connection: close',
    ...headers,
  ];
  return `${all.join('\r\n')}\r\n\r\n${line}\n`;
}
