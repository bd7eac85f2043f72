import { Agent, request as send } from 'node:http';
import { buffer } from 'node:stream/consumers';
import { gzipSync } from 'node:zlib';
import { createHash } from 'node:crypto';

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
}

/** A file as a list tells of it, with its whole name. */
export interface ListedFile {
  readonly name: string;
  readonly version: number;
  readonly size: number;
  readonly digest: string;
}

/** A store behind a real server, as a client sees it. A method rejects where no answer came. */
export class HttpStore {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 64 });
  readonly #timeoutMs: number;
  port: number;

  constructor(port: number, options: { timeoutMs?: number } = {}) {
    this.port = port;
    this.#timeoutMs = options.timeoutMs ?? 20_000;
  }

  async request(
    method: string,
    path: string,
    options: { body?: Buffer; headers?: Readonly<Record<string, string>> } = {},
  ): Promise<HttpAnswer> {
    const { body, headers = {} } = options;
    return new Promise((resolve, reject) => {
      const outgoing = send(
        {
          host: '127.0.0.1',
          port: this.port,
          method,
          path,
          agent: this.#agent,
          timeout: this.#timeoutMs,
          headers: { ...(body && { 'content-length': body.length }), ...headers },
        },
        (incoming) => {
          buffer(incoming).then(
            (bytes) => resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body: bytes }),
            reject,
          );
        },
      );
      outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer to ${method} ${path} in time`)));
      outgoing.on('error', reject);
      outgoing.end(body);
    });
  }

  /** With hints and compressed, as the clients of old send it, or plain. */
  async put(name: string, version: number, content: Buffer, hinted = false): Promise<HttpAnswer> {
    const path = `/files${name}?${versionQuery(version)}`;
    if (!hinted) return this.request('PUT', path, { body: content });
    const headers = {
      'content-encoding': 'gzip',
      'sha256-checksum': createHash('sha256').update(content).digest('hex'),
      'logical-size': String(content.length),
    };
    return this.request('PUT', path, { body: gzipSync(content, { level: 1 }), headers });
  }

  async remove(name: string, version: number): Promise<HttpAnswer> {
    return this.request('DELETE', `/files${name}?${versionQuery(version)}`);
  }

  async get(name: string): Promise<HttpAnswer> {
    return this.request('GET', `/files${name}`);
  }

  /** The list of a folder such as `/a/`, in the form that tells version and digest. */
  async requestList(folder: string): Promise<HttpAnswer> {
    return this.request('GET', `/list${folder}`, { headers: { accept: 'application/x-ndjson' } });
  }

  /** Every file, or of a folder such as `/a/`. */
  async list(folder = '/'): Promise<readonly ListedFile[]> {
    const answer = await this.requestList(folder);
    if (answer.status !== 200)
      throw new Error(`the list answers ${answer.status}: ${answer.body.toString()}`);
    return listedFiles(answer);
  }

  close(): void {
    this.#agent.destroy();
  }
}

/** The files of a list. */
export function listedFiles(answer: HttpAnswer): readonly ListedFile[] {
  const lines = answer.body.toString().split('\n').filter(Boolean);
  return lines.map((line) => JSON.parse(line) as ListedFile);
}

function versionQuery(version: number): string {
  return `last_modified=${encodeURIComponent(new Date(version * 1000).toUTCString())}`;
}

/** The version that an answer names, in seconds. */
export function versionOf(answer: HttpAnswer): number {
  return Date.parse(String(answer.headers['last-modified'])) / 1000;
}
