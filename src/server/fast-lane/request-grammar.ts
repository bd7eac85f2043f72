// The requests that the fast lane serves, as exact bytes. The grammar is narrower than node:http's on purpose: what it
// accepts has one meaning to every reader, and everything else goes to node:http as it came.
//
//   request = ("GET" / "HEAD") " " base-path "/files/" *plain " HTTP/1.1" CRLF 1*(name ":" value CRLF) CRLF
//
// A name is one of `knownNames`, once; a value is printable ASCII. Nothing may follow: a pipeline goes to node:http. A body,
// an upgrade, an expectation, a transfer coding and "Connection: close" need headers or values that are not accepted.
import type { IncomingHttpHeaders } from 'node:http';
import type { Socket } from 'node:net';
import type { RequestHead } from '../connections/messages.ts';

/** Longer heads go to node:http. */
const headSizeMaxBytes = 4096;

const version = ' HTTP/1.1';
const plainTarget = /^[\w./~@=+,:%-]*$/;
const printable = /^[\x20-\x7e]*$/;

const knownNames: ReadonlySet<string> = new Set([
  'accept',
  'accept-encoding',
  'accept-language',
  'authorization',
  'cache-control',
  'connection',
  'cookie',
  'forwarded',
  'host',
  'if-match',
  'if-modified-since',
  'if-none-match',
  'if-range',
  'if-unmodified-since',
  'pragma',
  'range',
  'referer',
  'traceparent',
  'tracestate',
  'user-agent',
  'via',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-port',
  'x-forwarded-proto',
  'x-real-ip',
  'x-request-id',
]);

/** The header lines of a request. Most clients send the same ones again, so a connection keeps those of its last request. */
export class HeaderBlock {
  /** All lines and the empty one, as they came. */
  readonly text: string;
  readonly rawHeaders: readonly string[];
  readonly headers: IncomingHttpHeaders;

  private constructor(text: string, rawHeaders: readonly string[], headers: IncomingHttpHeaders) {
    this.text = text;
    this.rawHeaders = rawHeaders;
    this.headers = headers;
  }

  /** `undefined` if the lines are not in the grammar. */
  static parse(text: string): HeaderBlock | undefined {
    const rawHeaders: string[] = [];
    const values = new Map<string, string>();
    let start = 0;
    for (let end = text.indexOf('\r\n'); end !== start; end = text.indexOf('\r\n', start)) {
      if (end === -1) return undefined;
      const colon = text.indexOf(':', start);
      if (colon === -1 || colon > end) return undefined;
      const name = text.slice(start, colon);
      const value = text.slice(colon + 1, end);
      const known = name.toLowerCase();
      if (!knownNames.has(known) || values.has(known) || !printable.test(value)) return undefined;
      // Printable text has no blank but the space.
      const trimmed = value.trim();
      rawHeaders.push(name, trimmed);
      values.set(known, trimmed);
      start = end + 2;
    }
    const connection = values.get('connection');
    const endsHere = start + 2 === text.length;
    const keepsAlive = connection === undefined || connection.toLowerCase() === 'keep-alive';
    if (!endsHere || !keepsAlive || !values.has('host')) return undefined;
    return new HeaderBlock(text, rawHeaders, Object.fromEntries(values));
  }
}

/** A request that the fast lane serves. */
export class LaneRequest implements RequestHead {
  readonly method: 'GET' | 'HEAD';
  readonly url: string;
  readonly rawHeaders: readonly string[];
  readonly headers: IncomingHttpHeaders;
  readonly socket: Socket;
  readonly httpVersion = '1.1';

  constructor(method: 'GET' | 'HEAD', url: string, block: HeaderBlock, socket: Socket) {
    this.method = method;
    this.url = url;
    this.rawHeaders = block.rawHeaders;
    this.headers = block.headers;
    this.socket = socket;
  }
}

/** Reads the requests of one connection. */
export class RequestReader {
  readonly #socket: Socket;
  /** What the targets of accepted requests begin with. */
  readonly #prefix: string;
  #last: HeaderBlock | undefined;

  /** @param basePath prefix of every path, such as `/ft`. */
  constructor(socket: Socket, basePath: string) {
    this.#socket = socket;
    this.#prefix = `${basePath}/files/`;
  }

  /** The request that the bytes are, all of them; `undefined` if they are not in the grammar. */
  read(bytes: Buffer): LaneRequest | undefined {
    if (bytes.length > headSizeMaxBytes) return undefined;
    const text = bytes.toString('latin1');
    const method = methodOf(text);
    if (method === undefined) return undefined;
    const start = method.length + 1;
    const lineEnd = text.indexOf('\r\n', start);
    const end = lineEnd - version.length;
    if (end < start || !text.startsWith(version, end) || !text.startsWith(this.#prefix, start))
      return undefined;
    const url = text.slice(start, end);
    if (!plainTarget.test(url)) return undefined;
    const lines = text.slice(lineEnd + 2);
    const block = this.#last?.text === lines ? this.#last : HeaderBlock.parse(lines);
    if (block === undefined) return undefined;
    this.#last = block;
    return new LaneRequest(method, url, block, this.#socket);
  }
}

function methodOf(text: string): 'GET' | 'HEAD' | undefined {
  if (text.startsWith('GET ')) return 'GET';
  return text.startsWith('HEAD ') ? 'HEAD' : undefined;
}
