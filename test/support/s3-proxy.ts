import {
  createServer,
  request as send,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import { onTestFinished } from 'vitest';

export interface S3Request {
  readonly method: string;
  /** Of the object, or of the bucket. */
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
}

/** An answer of the proxy's own; with `passed` the server has carried the request out before. */
interface OwnAnswer {
  readonly status: number;
  /** Stands in a body as S3's errors have it, whatever the status. */
  readonly code?: string;
  readonly content?: Buffer;
  readonly headers?: Readonly<Record<string, string>>;
  readonly passed?: boolean;
}

/** What becomes of one request: an answer of the proxy's own, or another body or head than the server's. */
export type Twist =
  OwnAnswer | { readonly body: (bytes: Buffer) => Buffer } | { readonly withoutHeader: string };

/** Stands between a server and its object store, and understands what passes: for habits of other makes of S3. */
export class S3Proxy {
  readonly #server: Server;
  readonly requests: S3Request[] = [];
  twist: (request: S3Request) => Twist | undefined = () => undefined;

  private constructor(target: URL) {
    this.#server = createServer((request, response) => {
      const { pathname, searchParams } = new URL(request.url ?? '/', target);
      const { method = '', headers } = request;
      const asked: S3Request = { method, path: pathname, query: searchParams, headers };
      this.requests.push(asked);
      const twist = this.twist(asked);
      const own = twist !== undefined && 'status' in twist ? twist : undefined;
      if (own !== undefined && own.passed !== true) {
        request.resume();
        request.on('end', () => answer(response, own));
        return;
      }
      const { hostname, port } = target;
      // The name that the client signed stays, as a proxy in front of an object store must leave it.
      const passed = send({ hostname, port, method, path: request.url, headers }, (answered) => {
        const parts: Buffer[] = [];
        answered.on('data', (part: Buffer) => parts.push(part));
        answered.on('end', () => {
          if (own !== undefined) answer(response, own);
          else passOn(response, { method, answered, bytes: Buffer.concat(parts), twist });
        });
      });
      passed.on('error', () => response.destroy());
      request.pipe(passed);
    });
  }

  /** Closed when the test is over. */
  static async open(targetUrl: string): Promise<S3Proxy> {
    const proxy = new S3Proxy(new URL(targetUrl));
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => {
      proxy.#server.closeAllConnections();
      proxy.#server.close();
    });
    return proxy;
  }

  get url(): string {
    const address = this.#server.address();
    return `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`;
  }
}

function answer(response: ServerResponse, { status, code, content, headers = {} }: OwnAnswer): void {
  const body = content ?? Buffer.from(code === undefined ? '' : `<Error><Code>${code}</Code></Error>`);
  response.writeHead(status, { 'Content-Length': body.length, ...headers }).end(body);
}

function passOn(
  response: ServerResponse,
  parts: { method: string; answered: IncomingMessage; bytes: Buffer; twist: Twist | undefined },
): void {
  const { method, answered, bytes, twist } = parts;
  const sent = twist !== undefined && 'body' in twist ? twist.body(bytes) : bytes;
  const { 'transfer-encoding': _, ...kept } = answered.headers;
  if (method !== 'HEAD' && answered.statusCode !== 204) kept['content-length'] = String(sent.length);
  const left = twist !== undefined && 'withoutHeader' in twist ? twist.withoutHeader : '';
  const entries = Object.entries(kept).filter(([name]) => name !== left);
  response.writeHead(answered.statusCode ?? 500, Object.fromEntries(entries)).end(sent);
}

/** A bit of the middle is another one. */
export function flipped(bytes: Buffer): Buffer {
  const wrong = Buffer.from(bytes);
  const middle = Math.floor(wrong.length / 2);
  if (wrong.length > 0) wrong.writeUInt8(wrong.readUInt8(middle) ^ 1, middle);
  return wrong;
}
