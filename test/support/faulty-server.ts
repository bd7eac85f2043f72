import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gzipSync } from 'node:zlib';
import { onTestFinished } from 'vitest';
import { digestOf } from '../../src/core/digest.ts';
import { formatDate, parseDate } from '../../src/protocol/dates.ts';

/** How one request goes wrong; the next one is answered as it should be. */
export type Fault =
  /** The connection is cut after so many bytes of the body. */
  | { readonly kind: 'cut'; readonly afterBytes: number; readonly onCut?: () => void }
  /** The body stops after so many bytes and nothing follows. */
  | { readonly kind: 'stall'; readonly afterBytes: number }
  /** Another body comes than the headers say. */
  | { readonly kind: 'wrong'; readonly body: Buffer }
  | { readonly kind: 'status'; readonly status: number; readonly headers?: Record<string, string> }
  /** The connection is cut before any answer. */
  | { readonly kind: 'drop' };

/** What kind of server it is. */
export type Dialect =
  /** As ours: digests, tags, ranges. */
  | 'ours'
  /** As the Python server of protocol version 2: no digest in answers, no ranges, no conditions. */
  | 'python'
  /** As a version-1 server: plain files. */
  | 'version-1';

export interface FaultyFile {
  readonly version: number;
  readonly bytes: Buffer;
}

export interface FaultyServer {
  readonly url: string;
  readonly files: Map<string, FaultyFile>;
  /** Faults of the requests to come, in order. */
  readonly faults: Fault[];
  readonly requests: {
    readonly method: string;
    readonly path: string;
    readonly headers: IncomingMessage['headers'];
  }[];
}

/** A server that does what it is told, right or wrong, for the running test alone. */
export async function faultyServer(dialect: Dialect = 'ours'): Promise<FaultyServer> {
  const files = new Map<string, FaultyFile>();
  const faults: Fault[] = [];
  const requests: FaultyServer['requests'] = [];
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://localhost');
    const path = decodeURIComponent(url.pathname);
    requests.push({ method: request.method ?? '', path, headers: request.headers });
    const answer = (): void => answerRequest(dialect, files, request, response, path, url);
    if (path.startsWith('/version') && dialect !== 'version-1') {
      const features =
        dialect === 'ours' ? { features: ['range', 'conditional', 'expect-continue', 'chunked-upload'] } : {};
      response.end(JSON.stringify({ protocol_versions: [2], ...features }));
      return;
    }
    const fault = faults.shift();
    if (fault === undefined) answer();
    else injectFault(fault, files.get(path.slice('/files'.length)), response, request, dialect);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, files, faults, requests };
}

function headersOf(dialect: Dialect, { version, bytes }: FaultyFile): Record<string, string> {
  const common = { 'Last-Modified': formatDate(version), 'Content-Length': String(bytes.length) };
  if (dialect === 'version-1') return common;
  if (dialect === 'python') return { ...common, 'Logical-Size': String(bytes.length) };
  const digest = digestOf(bytes);
  return { ...common, 'Logical-Size': String(bytes.length), 'SHA256-Checksum': digest, ETag: `"${digest}"` };
}

function injectFault(
  fault: Fault,
  file: FaultyFile | undefined,
  response: ServerResponse,
  request: IncomingMessage,
  dialect: Dialect,
): void {
  if (fault.kind === 'status') {
    response.writeHead(fault.status, { 'Content-Type': 'text/plain', ...fault.headers });
    response.end('it is told to fail\n');
    return;
  }
  if (fault.kind === 'drop' || file === undefined) {
    request.socket.destroy();
    return;
  }
  const range = /^bytes=(\d+)-$/.exec(request.headers.range ?? '');
  const first = dialect === 'ours' && range !== null ? Number(range[1]) : 0;
  const headers = headersOf(dialect, file);
  if (fault.kind === 'wrong') {
    response.writeHead(200, { ...headers, 'Content-Length': String(fault.body.length) });
    response.end(fault.body);
    return;
  }
  const rest = file.bytes.subarray(first);
  response.writeHead(first > 0 ? 206 : 200, {
    ...headers,
    'Content-Length': String(rest.length),
    ...(first > 0 && {
      'Content-Range': `bytes ${first}-${file.bytes.length - 1}/${file.bytes.length}`,
    }),
  });
  response.write(rest.subarray(0, fault.afterBytes), () => {
    if (fault.kind !== 'cut') return;
    // What was written shall arrive before the connection goes.
    setTimeout(() => {
      fault.onCut?.();
      response.destroy();
    }, 20);
  });
}

function answerRequest(
  dialect: Dialect,
  files: Map<string, FaultyFile>,
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  url: URL,
): void {
  const name = path.startsWith('/files/') ? path.slice('/files'.length) : '';
  const file = files.get(name);
  if (request.method === 'PUT' && name !== '') {
    const date =
      dialect === 'version-1' ? request.headers['last-modified'] : url.searchParams.get('last_modified');
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      const version = parseDate(date ?? '');
      files.set(name, { version, bytes: Buffer.concat(parts) });
      response.writeHead(200, { 'Last-Modified': formatDate(version) }).end();
    });
    return;
  }
  if (file === undefined || (request.method !== 'GET' && request.method !== 'HEAD')) {
    // Each as its kind: the web server of version 1 has a name, and shows that it has a folder of files.
    const head = dialect === 'version-1' ? { Server: 'filetracker' } : { 'X-Exception': 'no such file' };
    response.writeHead(404, { 'Content-Type': 'text/plain', ...head }).end('there is no such file\n');
    return;
  }
  const headers = headersOf(dialect, file);
  if (request.headers['if-none-match'] === headers['ETag'] && dialect === 'ours') {
    response.writeHead(304, headers).end();
    return;
  }
  const range = /^bytes=(\d+)-$/.exec(request.headers.range ?? '');
  if (range !== null && dialect === 'ours') {
    const rest = file.bytes.subarray(Number(range[1]));
    const size = file.bytes.length;
    response.writeHead(206, {
      ...headers,
      'Content-Length': String(rest.length),
      'Content-Range': `bytes ${range[1]}-${size - 1}/${size}`,
    });
    response.end(rest);
    return;
  }
  if (dialect === 'python' && /gzip/.test(request.headers['accept-encoding'] ?? '')) {
    const packed = gzipSync(file.bytes);
    const length = { 'Content-Length': String(packed.length), 'Content-Encoding': 'gzip' };
    response.writeHead(200, { ...headers, ...length });
    response.end(request.method === 'HEAD' ? undefined : packed);
    return;
  }
  response.writeHead(200, headers);
  response.end(request.method === 'HEAD' ? undefined : file.bytes);
}
