import type { IncomingHttpHeaders } from 'node:http';
import { FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import type { FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { timerMs } from '../../core/timers.ts';
import { formatRetryAge, parseSize, removedHeader } from '../../protocol/content-claims.ts';
import { parseContentEncoding } from '../../protocol/content-encoding.ts';
import { listJsonType } from '../../protocol/endpoints.ts';
import { parseEntryLine, parseNameLine } from '../../protocol/list-format.ts';
import type { ListedFile } from '../../protocol/list-format.ts';
import { formatListQuery, formatVersionQuery } from '../../protocol/query.ts';
import type { ListQuery } from '../../protocol/query.ts';
import { filePath, listPath } from '../../protocol/request-target.ts';
import { bodyChunks } from '../../streams/chunks.ts';
import { requireCounts } from '../arguments.ts';
import { fromConnectionError } from './connection-errors.ts';
import { discard } from './discarded-body.ts';
import {
  acceptProblem,
  misleadingEnd,
  noServer,
  openHeaders,
  parseAbilities,
  putRequest,
  readingResponse,
  remoteFile,
  senderOfAbsence,
  sizeOfPart,
  translatedChunks,
  versionOf,
} from './responses.ts';
import { HttpConnection } from './connection.ts';
import type { TlsOptions } from './certificate-files.ts';
import type { ConnectionOptions } from './connection.ts';
import { errorOf, textOf } from './errors.ts';
import { HttpRedirects } from './redirects.ts';
import type { FollowedAnswer } from './redirects.ts';
import { linesOf } from '../lines.ts';
import type { ProxySetting } from './proxies.ts';
import { LengthRequiredError } from './remote-store.ts';
import type {
  OpenOptions,
  RemoteAbilities,
  RemoteAnswer,
  RemoteContent,
  RemoteFile,
  RemoteStore,
  UploadAnswer,
  UploadContent,
} from './remote-store.ts';
import { defaultRetryPolicy, Retries, withRetries } from './retries.ts';
import type { RetryPolicy } from './retries.ts';
import { parseServerAddress } from './server-address.ts';

export interface HttpTransportOptions {
  readonly connections?: number | undefined;
  readonly connectTimeoutMs?: number | undefined;
  readonly stallTimeoutMs?: number | undefined;
  readonly answerTimeoutMs?: number | undefined;
  readonly retries?: Partial<RetryPolicy> | undefined;
  readonly tls?: TlsOptions | undefined;
  readonly proxy?: ProxySetting;
}

const defaultConnectionOptions: ConnectionOptions = {
  connections: 16,
  connectTimeoutMs: 10_000,
  stallTimeoutMs: 30_000,
  answerTimeoutMs: 600_000,
  tls: {},
};

interface SignalOption {
  readonly signal?: AbortSignal | undefined;
}

const legacyAbilities: RemoteAbilities = { protocolVersion: 1, features: new Set() };

/** A server reached over HTTP, in version 2 of the protocol with or without our additions, or in version 1. */
export class HttpTransport implements RemoteStore {
  readonly #connection: HttpConnection;
  readonly #redirects: HttpRedirects;
  readonly #retries: RetryPolicy;
  /** Whether the address may be that of an endpoint: then a file that is not there may be another one, and the server is looked for first. */
  readonly #isMisled: boolean;
  /** Whether a proxy before the server takes no bodies without a length. */
  #needsLength = false;
  #abilities: Promise<RemoteAbilities> | undefined;

  /** Connects to nothing yet. @throws FiletrackerError `invalid-argument` for an address that is none, or a certificate without its key. */
  constructor(remoteUrl: string, options: HttpTransportOptions = {}) {
    const defaults = defaultConnectionOptions;
    const { connections, connectTimeoutMs, stallTimeoutMs, answerTimeoutMs } = options;
    requireCounts({ connections, connectTimeoutMs, stallTimeoutMs, answerTimeoutMs }, 1);
    requireCounts({ ...options.retries }, 0);
    const connectionOptions: ConnectionOptions = {
      connections: connections ?? defaults.connections,
      connectTimeoutMs: timerMs(connectTimeoutMs ?? defaults.connectTimeoutMs),
      stallTimeoutMs: timerMs(stallTimeoutMs ?? defaults.stallTimeoutMs),
      answerTimeoutMs: timerMs(answerTimeoutMs ?? defaults.answerTimeoutMs),
      tls: options.tls ?? defaults.tls,
      proxy: options.proxy,
    };
    const { cert, key } = connectionOptions.tls;
    if ((cert === undefined) !== (key === undefined)) {
      const missing = key === undefined ? 'key' : 'certificate';
      throw new FiletrackerError('invalid-argument', `Cannot show a certificate: its ${missing} is missing`);
    }
    this.#retries = { ...defaultRetryPolicy, ...options.retries };
    this.#connection = new HttpConnection(parseServerAddress(remoteUrl), connectionOptions);
    this.#isMisled = misleadingEnd.test(this.shown);
    this.#redirects = new HttpRedirects(this.#connection, connectionOptions);
  }

  get shown(): string {
    return this.#connection.address.shown;
  }

  /** Runs what is safe to repeat until it succeeds or fails for good. */
  #repeated<T>(signal: AbortSignal | undefined, attempt: () => Promise<T>): Promise<T> {
    return withRetries(this.#retries, signal, attempt, () => this.#connection.reached);
  }

  /** Asked once; reading files does not need it. */
  async abilities(options: SignalOption = {}): Promise<RemoteAbilities> {
    this.#abilities ??= this.#askAbilities(options.signal);
    try {
      const abilities = await this.#abilities;
      if (!this.#needsLength) return abilities;
      const features = [...abilities.features].filter((feature) => feature !== 'chunked-upload');
      return { ...abilities, features: new Set(features) };
    } catch (error) {
      this.#abilities = undefined;
      throw error;
    }
  }

  async #askAbilities(signal: AbortSignal | undefined): Promise<RemoteAbilities> {
    const action = 'ask for the versions of the protocol';
    return await this.#repeated(signal, async () => {
      const answer = await this.#redirects.request({ method: 'GET', path: '/version/', action, signal });
      const isMisled = this.#isMisled && answer.status >= 400 && answer.status < 500;
      if (answer.status === 404 || isMisled) {
        discard(answer.body);
        if (await this.#isVersion1(answer.headers, action, signal)) return legacyAbilities;
        throw noServer(action, this.shown);
      }
      if (answer.status !== 200) throw await this.#errorOf(answer, action);
      return parseAbilities(await textOf(answer, { action, peer: answer.peer, signal }), this.shown);
    });
  }

  /** A version-1 server does not know /version, but neither does any other web server. */
  async #isVersion1(
    headers: IncomingHttpHeaders,
    action: string,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    const sender = senderOfAbsence(headers);
    if (sender !== 'unknown') return sender === 'version-1';
    // Its files lie in a folder of the web server, which shows that there is one, though it may not list it.
    const answer = await this.#redirects.request({ method: 'HEAD', path: '/files/', action, signal });
    discard(answer.body);
    return answer.status === 200 || answer.status === 403;
  }

  /** Makes sure that a 404 speaks of a file; only an answer that may come from anywhere costs a question, once. */
  async #requireServer({ headers }: FollowedAnswer, action: string, options: SignalOption): Promise<void> {
    const sender = senderOfAbsence(headers);
    if (sender === 'none') throw noServer(action, this.shown);
    if (sender === 'unknown') await this.abilities(options);
  }

  async stat(name: FileName, options: SignalOption = {}): Promise<RemoteFile | undefined> {
    const action = `look at "${name}"`;
    if (this.#isMisled) await this.abilities(options);
    return await this.#repeated(options.signal, async () => {
      const answer = await this.#redirects.request({
        method: 'HEAD',
        path: filePath(name),
        action,
        ...options,
      });
      discard(answer.body);
      if (answer.status === 404) {
        await this.#requireServer(answer, action, options);
        return undefined;
      }
      if (answer.status !== 200) throw await this.#errorOf(answer, action);
      return readingResponse(action, answer.peer, () => remoteFile(name, answer.headers));
    });
  }

  async open(name: FileName, options: OpenOptions = {}): Promise<RemoteAnswer> {
    const { etags = [], signal } = options;
    let { first } = options;
    const action = `get "${name}"`;
    if (this.#isMisled) await this.abilities({ signal });
    return await this.#repeated(signal, async () => {
      const headers = openHeaders(etags, first);
      const request = { method: 'GET', path: filePath(name), headers, action, signal } as const;
      // A server gives parts itself, so that a further try does not depend on where this one was sent.
      const answer = await this.#redirects.request(request, () => (first ??= 0));
      if (answer.direct && answer.status !== 200 && answer.status !== 206) {
        discard(answer.body);
        const state = `the place that the server sends readers to answered ${answer.status}`;
        throw new FiletrackerError('unavailable', `Cannot ${action}: ${state}`);
      }
      switch (answer.status) {
        case 200:
          return this.#contentOf(name, answer, 0, { action, signal });
        case 206:
          return this.#contentOf(name, answer, first ?? 0, { action, signal });
        case 304:
          discard(answer.body);
          return { kind: 'unchanged', version: versionOf(answer.headers), etag: answer.headers.etag };
        case 404:
          discard(answer.body);
          await this.#requireServer(answer, action, { signal });
          return { kind: 'absent' };
        default:
          throw await this.#errorOf(answer, action);
      }
    });
  }

  async put(
    name: FileName,
    version: FileVersion,
    content: UploadContent,
    options: SignalOption = {},
  ): Promise<UploadAnswer> {
    const { signal } = options;
    const action = `put "${name}"`;
    const abilities = await this.abilities(options);
    const request = putRequest(name, version, content, abilities);
    const firstSentMs = performance.now();
    let tries = 0;
    // A repeat must not bring back what was removed after an earlier try had stored it.
    const repeatHeaders = () => ({ 'Retry-Age': formatRetryAge(performance.now() - firstSentMs) });
    return await this.#repeated(signal, async () => {
      const headers = { ...request.headers, ...(tries > 0 && repeatHeaders()) };
      tries += 1;
      let sent = Buffer.isBuffer(request.body);
      const { body } = request;
      const counted = typeof body === 'function' ? () => ((sent = true), body()) : body;
      const answer = await this.#redirects.request({
        ...request,
        headers,
        repeatHeaders,
        body: counted,
        action,
        signal,
      });
      if (isLengthRequired(answer.status) && content.transferSize === undefined) {
        discard(answer.body);
        this.#needsLength = true;
        throw new LengthRequiredError(action, answer.peer);
      }
      if (answer.status !== 200 && answer.status !== 201) throw await this.#errorOf(answer, action);
      discard(answer.body);
      const removed = answer.headers[removedHeader] !== undefined;
      return { version: versionOf(answer.headers) ?? version, removed, sent };
    });
  }

  async remove(
    name: FileName,
    version: FileVersion,
    options: SignalOption = {},
  ): Promise<{ readonly kept: FileVersion | undefined } | undefined> {
    const { signal } = options;
    const action = `remove "${name}"`;
    await this.#requireVersion2(action, options);
    const path = `${filePath(name)}?${formatVersionQuery(version)}`;
    return await this.#repeated(signal, async () => {
      const answer = await this.#redirects.request({
        method: 'DELETE',
        path,
        headers: acceptProblem,
        action,
        signal,
      });
      if (answer.status === 200) {
        discard(answer.body);
        const stored = versionOf(answer.headers);
        return { kept: stored !== undefined && stored > version ? stored : undefined };
      }
      if (answer.status !== 404) throw await this.#errorOf(answer, action);
      discard(answer.body);
      return undefined;
    });
  }

  /** @param options.onUnusable is told of what can't be a name, which is left out then; an error unless given. */
  async *listNames(
    directory: string,
    query: ListQuery,
    options: SignalOption & { readonly onUnusable?: (line: string) => void } = {},
  ): AsyncIterable<FileName> {
    const { onUnusable } = options;
    yield* this.#list(directory, query, 'text/plain', options, (line) => {
      try {
        const name = parseNameLine(line, directory);
        return { name, item: name };
      } catch (error) {
        if (onUnusable === undefined || !isFiletrackerError(error, 'invalid-name')) throw error;
        onUnusable(line);
        return undefined;
      }
    });
  }

  async *listFiles(
    directory: string,
    query: ListQuery,
    options: SignalOption = {},
  ): AsyncIterable<ListedFile> {
    yield* this.#list(directory, query, listJsonType, options, (line) => {
      const item = parseEntryLine(line, directory);
      return { name: item.name, item };
    });
  }

  /** The items of a list; one that is cut goes on after its last name, where the server can begin there. */
  async *#list<T>(
    directory: string,
    query: ListQuery,
    accept: string,
    { signal }: SignalOption,
    read: (line: string) => { readonly name: FileName; readonly item: T } | undefined,
  ): AsyncIterable<T> {
    const action = `list "${directory}"`;
    await this.#requireVersion2(action, { signal });
    const { features } = await this.abilities({ signal });
    const retries = new Retries(this.#retries, signal);
    for (let { after } = query; ;) {
      // Has tried again by itself, unlike the reading.
      const body = await this.#openList(directory, { ...query, after }, accept, action, signal);
      try {
        for await (const line of this.#linesOf(body, action, signal)) {
          if (line === '') continue;
          const found = readingResponse(action, this.#connection.peer, () => read(line));
          retries.reset();
          if (found === undefined) continue;
          after = found.name;
          yield found.item;
        }
        return;
      } catch (error) {
        if (after === undefined || !features.has('list-pages')) throw error;
        await retries.pauseAfter(error);
      }
    }
  }

  async #openList(
    directory: string,
    query: ListQuery,
    accept: string,
    action: string,
    signal: AbortSignal | undefined,
  ): Promise<FollowedAnswer['body']> {
    const parameters = formatListQuery(query);
    const path = `${listPath(directory)}${parameters === '' ? '' : `?${parameters}`}`;
    return await this.#repeated(signal, async () => {
      const headers = { Accept: `${accept}, application/problem+json;q=0.9` };
      const opened = await this.#redirects.request({ method: 'GET', path, headers, action, signal });
      if (opened.status !== 200) throw await this.#errorOf(opened, action);
      return opened.body;
    });
  }

  async *#linesOf(
    body: FollowedAnswer['body'],
    action: string,
    signal: AbortSignal | undefined,
  ): AsyncIterable<string> {
    try {
      yield* linesOf(bodyChunks(body, signal));
    } catch (error) {
      throw fromConnectionError(causeOf(error), action, this.#connection.peer, signal);
    } finally {
      body.destroy();
    }
  }

  /** Idempotent. */
  close(): void {
    this.#connection.close();
    this.#redirects.close();
  }

  /** What a 200 or 206 brings. */
  #contentOf(
    name: FileName,
    answer: FollowedAnswer,
    first: number,
    { action, signal }: SignalOption & { readonly action: string },
  ): RemoteContent {
    const { headers, body, status, direct, peer } = answer;
    try {
      return readingResponse(action, peer, () => {
        const length = headers['content-length'];
        const file = remoteFile(name, headers);
        return {
          kind: 'content',
          file: status === 206 ? { ...file, size: sizeOfPart(name, headers, first) } : file,
          encoding: parseContentEncoding(headers['content-encoding']),
          transferSize: length === undefined ? undefined : parseSize('Content-Length', length),
          first,
          direct,
          body: translatedChunks(body, (error) => fromConnectionError(error, action, peer, signal)),
          cancel: () => body.destroy(),
        };
      });
    } catch (error) {
      body.destroy();
      throw error;
    }
  }

  async #requireVersion2(action: string, options: SignalOption): Promise<void> {
    const { protocolVersion } = await this.abilities(options);
    if (protocolVersion >= 2) return;
    throw new FiletrackerError(
      'protocol',
      `Cannot ${action}: the server at "${this.shown}" speaks version 1 of the protocol, which has no such request`,
    );
  }

  #errorOf(answer: FollowedAnswer, action: string): Promise<FiletrackerError> {
    return errorOf(answer, {
      action,
      peer: answer.peer,
      redirectedBy: answer.peer === this.#connection.peer ? undefined : this.#connection.peer,
    });
  }
}

/** 411, and what proxies answer that know no chunks (RFC 9112, 6.1). */
function isLengthRequired(status: number): boolean {
  return status === 411 || status === 501;
}

function causeOf(error: unknown): unknown {
  return isFiletrackerError(error, 'aborted') ? error.cause : error;
}
