import type { CallOptions } from '../../core/concurrency.ts';
import { cannot, isFiletrackerError } from '../../core/errors.ts';
import type { FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import { formatRetryAge, removedHeader } from '../../protocol/content-claims.ts';
import { listJsonType } from '../../protocol/endpoints.ts';
import { parseEntryLine, parseNameLine, type ListedFile } from '../../protocol/list-format.ts';
import { formatListQuery, formatVersionQuery, type ListQuery } from '../../protocol/query.ts';
import { filePath, listPath } from '../../protocol/request-target.ts';
import { linesOf } from '../lines.ts';
import { HttpConnection } from './connection.ts';
import { HttpRedirects } from './redirects.ts';
import { LengthRequiredError } from './remote-store.ts';
import type {
  OpenOptions,
  RemoteCapabilities,
  RemoteFile,
  RemoteResponse,
  RemoteStore,
  UploadContent,
  UploadResult,
} from './remote-store.ts';
import { discard, repeated, type HttpRequest, type HttpResponse } from './request-attempt.ts';
import {
  acceptProblem,
  listedBytes,
  errorOf,
  misleadingEnd,
  noServer,
  openHeaders,
  parseCapabilities,
  putRequest,
  reading,
  remoteContent,
  remoteFile,
  senderOfAbsence,
  textOf,
  versionOf,
} from './responses.ts';
import { defaultRetryPolicy, Retries, withRetries, type RetryPolicy } from './retries.ts';
import { parseServerAddress } from './server-address.ts';
import { connectionOptionsOf, type HttpTransportOptions } from './transport-options.ts';

const legacyCapabilities: RemoteCapabilities = { protocolVersion: 1, features: new Set() };

/**
 * A server reached over HTTP, which speaks version 2 of the protocol, with or without our additions, or version 1.
 * Requests that are safe to repeat are retried by its policy.
 *
 * @example
 * ```ts
 * import { Client, HttpTransport } from 'filetracker';
 *
 * const { FILETRACKER_URL: url = '' } = process.env;
 * const client = new Client({ remoteStore: new HttpTransport(url, { connectTimeoutMs: 2000 }) });
 * console.log(await client.exists('/examples/none'));
 * await client.close();
 * ```
 */
export class HttpTransport implements RemoteStore {
  readonly #connection: HttpConnection;
  readonly #redirects: HttpRedirects;
  readonly #retries: RetryPolicy;
  /** Whether the address may be that of an endpoint: the server is then looked for before a missing file is believed. */
  readonly #isMisled: boolean;
  /** Whether a proxy before the server requires a length of each body. */
  #needsLength = false;
  #capabilities: Promise<RemoteCapabilities> | undefined;

  /**
   * Does not connect yet.
   * @param remoteUrl As `http://user:secret@host:9999/prefix`.
   * @throws FiletrackerError `invalid-argument` for an unusable address, proxy or option.
   */
  constructor(remoteUrl: string, options: HttpTransportOptions = {}) {
    const connectionOptions = connectionOptionsOf(options);
    this.#retries = { ...defaultRetryPolicy, ...options.retries };
    this.#connection = new HttpConnection(parseServerAddress(remoteUrl), connectionOptions);
    this.#redirects = new HttpRedirects(this.#connection, connectionOptions);
    this.#isMisled = misleadingEnd.test(this.shown);
  }

  get shown(): string {
    return this.#connection.address.shown;
  }

  /** Requested once; reading files does not need them. */
  async abilities(options: CallOptions = {}): Promise<RemoteCapabilities> {
    const isShared = this.#capabilities !== undefined;
    const requested = (this.#capabilities ??= this.#requestCapabilities(options));
    try {
      const capabilities = await requested;
      if (!this.#needsLength) return capabilities;
      const features = [...capabilities.features].filter((feature) => feature !== 'chunked-upload');
      return { ...capabilities, features: new Set(features) };
    } catch (error) {
      if (this.#capabilities === requested) this.#capabilities = undefined;
      // Another caller's abort is not this one's.
      if (isShared && isFiletrackerError(error, 'aborted')) return await this.abilities(options);
      throw error;
    }
  }

  #requestCapabilities({ signal }: CallOptions): Promise<RemoteCapabilities> {
    const action = 'request the versions of the protocol';
    return this.#request({ method: 'GET', path: '/version/', action, signal }, async (response) => {
      const { status } = response;
      if (status === 404 || (this.#isMisled && status >= 400 && status < 500)) {
        discard(response);
        if (await this.#isVersion1(response)) return legacyCapabilities;
        throw noServer(action, this.shown);
      }
      if (status !== 200) throw await errorOf(response);
      return parseCapabilities(await textOf(response), this.shown);
    });
  }

  /** A version-1 server does not know /version, but neither does any other web server. */
  async #isVersion1(response: HttpResponse): Promise<boolean> {
    const sender = senderOfAbsence(response);
    if (sender !== 'unknown') return sender === 'version-1';
    // Its files are in a folder of the web server, which exists although it may not be listed.
    const { action, signal } = response.request;
    const folder = await this.#redirects.request({ method: 'HEAD', path: '/files/', action, signal });
    discard(folder);
    return folder.status === 200 || folder.status === 403;
  }

  /** Makes sure that a 404 is about a file. Costs a request, once, if any web server may have sent it. */
  async #requireServer(response: HttpResponse): Promise<void> {
    const sender = senderOfAbsence(response);
    if (sender === 'none') throw noServer(response.request.action, this.shown);
    if (sender === 'unknown') await this.abilities(response.request);
  }

  async stat(name: FileName, options: CallOptions = {}): Promise<RemoteFile | undefined> {
    const action = `look at "${name}"`;
    if (this.#isMisled) await this.abilities(options);
    const request = { method: 'HEAD', path: filePath(name), action, signal: options.signal } as const;
    return await this.#request(request, async (response) => {
      discard(response);
      if (response.status === 200) return remoteFile(name, response);
      if (response.status !== 404) throw await errorOf(response);
      await this.#requireServer(response);
      return undefined;
    });
  }

  async open(name: FileName, options: OpenOptions = {}): Promise<RemoteResponse> {
    const { etags = [], signal } = options;
    let { first } = options;
    const action = `get "${name}"`;
    if (this.#isMisled) await this.abilities(options);
    return await this.#retrying(signal, async () => {
      const headers = openHeaders(etags, first);
      const request = { method: 'GET', path: filePath(name), headers, action, signal } as const;
      // The server sends parts itself, so a retry does not depend on where this try was redirected to.
      const response = await this.#redirects.request(request, () => (first ??= 0));
      const { status, direct = false } = response;
      if (status === 200) return remoteContent(name, response, 0);
      if (status === 206) return remoteContent(name, response, first ?? 0);
      if (!direct && status !== 304 && status !== 404) throw await errorOf(response);
      discard(response);
      if (direct) {
        const state = `the object store to which the server redirects responded with status ${status}`;
        throw cannot('unavailable', action, state);
      }
      if (status === 304) {
        return { kind: 'unchanged', version: versionOf(response.headers), etag: response.headers.etag };
      }
      await this.#requireServer(response);
      return { kind: 'absent' };
    });
  }

  async put(
    name: FileName,
    version: FileVersion,
    content: UploadContent,
    options: CallOptions = {},
  ): Promise<UploadResult> {
    const action = `put "${name}"`;
    const { bytes, transferSize } = content;
    let sent = false;
    const firstSentMs = performance.now();
    const request: HttpRequest = {
      ...putRequest(name, version, content, await this.abilities(options)),
      body: typeof bytes === 'function' ? () => ((sent = true), bytes()) : bytes,
      // A repeat must not restore what was removed after an earlier try had stored it.
      repeatHeaders: () => ({ 'Retry-Age': formatRetryAge(performance.now() - firstSentMs) }),
      action,
      signal: options.signal,
    };
    let tries = 0;
    return await this.#retrying(request.signal, async () => {
      sent = typeof bytes !== 'function';
      tries += 1;
      const response = await this.#redirects.request(tries === 1 ? request : repeated(request));
      const { status, headers, peer } = response;
      if (isLengthRequired(status) && transferSize === undefined) {
        discard(response);
        this.#needsLength = true;
        throw new LengthRequiredError(action, peer);
      }
      if (status !== 200 && status !== 201) throw await errorOf(response);
      discard(response);
      const removed = headers[removedHeader] !== undefined;
      return { version: versionOf(headers) ?? version, removed, sent };
    });
  }

  async remove(
    name: FileName,
    version: FileVersion,
    { signal }: CallOptions = {},
  ): Promise<{ readonly kept: FileVersion | undefined } | undefined> {
    const action = `remove "${name}"`;
    await this.#requireVersion2(action, { signal });
    const path = `${filePath(name)}?${formatVersionQuery(version)}`;
    const request = { method: 'DELETE', path, headers: acceptProblem, action, signal } as const;
    return await this.#request(request, async (response) => {
      if (response.status !== 200 && response.status !== 404) throw await errorOf(response);
      discard(response);
      if (response.status === 404) return undefined;
      const stored = versionOf(response.headers);
      return { kept: stored !== undefined && stored > version ? stored : undefined };
    });
  }

  /** @param options `onUnusable` receives lines that are no valid names, which are left out; an error unless given. */
  async *listNames(
    directory: string,
    query: ListQuery,
    options: CallOptions & { readonly onUnusable?: (line: string) => void } = {},
  ): AsyncIterable<FileName> {
    const { onUnusable } = options;
    const read = (line: string): { readonly name: FileName } | undefined => {
      try {
        return { name: parseNameLine(line, directory) };
      } catch (error) {
        if (onUnusable === undefined || !isFiletrackerError(error, 'invalid-name')) throw error;
        onUnusable(line);
        return undefined;
      }
    };
    for await (const { name } of this.#list(directory, query, options, { type: 'text/plain', read })) {
      yield name;
    }
  }

  listFiles(directory: string, query: ListQuery, options: CallOptions = {}): AsyncIterable<ListedFile> {
    const read = (line: string): ListedFile => parseEntryLine(line, directory);
    return this.#list(directory, query, options, { type: listJsonType, read });
  }

  /** The items of a list. One that is cut resumes after its last name if the server can begin there. */
  async *#list<T extends { readonly name: FileName }>(
    directory: string,
    query: ListQuery,
    { signal }: CallOptions,
    { type, read }: { readonly type: string; readonly read: (line: string) => T | undefined },
  ): AsyncIterable<T> {
    const action = `list "${directory}"`;
    const { features } = await this.#requireVersion2(action, { signal });
    const retries = new Retries(this.#retries, signal);
    for (let { after } = query; ;) {
      // Retries by itself, unlike the reading.
      const response = await this.#openList(directory, { ...query, after }, type, { action, signal });
      try {
        for await (const line of linesOf(listedBytes(response))) {
          if (line === '') continue;
          const item = reading(response, () => read(line));
          retries.reset();
          if (item === undefined) continue;
          after = item.name;
          yield item;
        }
        return;
      } catch (error) {
        if (after === undefined || !features.has('list-pages')) throw error;
        await retries.pauseAfter(error);
      }
    }
  }

  #openList(
    directory: string,
    query: ListQuery,
    type: string,
    options: Pick<HttpRequest, 'action' | 'signal'>,
  ): Promise<HttpResponse> {
    const parameters = formatListQuery(query);
    const path = `${listPath(directory)}${parameters === '' ? '' : `?${parameters}`}`;
    const headers = { Accept: `${type}, application/problem+json;q=0.9` };
    return this.#request({ method: 'GET', path, headers, ...options }, async (response) => {
      if (response.status !== 200) throw await errorOf(response);
      return response;
    });
  }

  /** Idempotent. */
  close(): void {
    this.#connection.close();
    this.#redirects.close();
  }

  async #requireVersion2(action: string, options: CallOptions): Promise<RemoteCapabilities> {
    const capabilities = await this.abilities(options);
    if (capabilities.protocolVersion >= 2) return capabilities;
    const state = `the server at "${this.shown}" speaks version 1 of the protocol, which has no such request`;
    throw cannot('protocol', action, state);
  }

  /** Sends a request that is safe to repeat until `read` accepts its response or it fails for good. */
  #request<T>(request: HttpRequest, read: (response: HttpResponse) => Promise<T>): Promise<T> {
    return this.#retrying(request.signal, async () => await read(await this.#redirects.request(request)));
  }

  #retrying<T>(signal: AbortSignal | undefined, attempt: () => Promise<T>): Promise<T> {
    return withRetries(this.#retries, signal, attempt, () => this.#connection.reached);
  }
}

/** 411, and what proxies respond that know no chunks (RFC 9112, 6.1). */
function isLengthRequired(status: number): boolean {
  return status === 411 || status === 501;
}
