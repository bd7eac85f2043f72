import { Agent, request as plainRequest, type AgentOptions, type RequestOptions } from 'node:http';
import { cannot, type FiletrackerError } from '../../core/errors.ts';
import { proxyAuthorization, proxyFor } from './proxies.ts';
import { discard, repeated, RequestAttempt, StaleConnectionError } from './request-attempt.ts';
import type { HttpRequest, HttpResponse } from './request-attempt.ts';
import type { ServerAddress } from './server-address.ts';
import type { ConnectionOptions } from './transport-options.ts';

/** How requests reach a server, straight or through a proxy. */
interface Route {
  readonly send: typeof plainRequest;
  readonly agent: Agent;
  readonly hostname: string;
  readonly port: number;
  /** Precedes the path of each request; for a proxy it begins with the origin of the server. */
  readonly pathPrefix: string;
  readonly headers: Readonly<Record<string, string>>;
}

/**
 * Keep-alive connections to one server. Uses Node's own client, although others are faster, because uploads need
 * `Expect: 100-continue`, which others do not send, and because a program that runs for a tenth of a second cannot
 * spend a third of that on loading one.
 */
export class HttpConnection {
  readonly address: ServerAddress;
  readonly #options: ConnectionOptions;
  #route: Route | undefined;
  #opening: Promise<Route> | undefined;
  #peer: string;
  #closed = false;
  #reached = false;
  /** Whether the server, or a proxy before it, refuses `Expect: 100-continue`. */
  #refusesExpect = false;

  constructor(address: ServerAddress, options: ConnectionOptions) {
    this.address = address;
    this.#options = options;
    this.#peer = `"${address.shown}"`;
  }

  /** Whether the server has ever responded. */
  get reached(): boolean {
    return this.#reached;
  }

  /** The server as messages name it, with the proxy before it. */
  get peer(): string {
    return this.#peer;
  }

  /**
   * Sends one request and resolves with the head of the response.
   * @throws FiletrackerError `unreachable`, `timeout`, `aborted`, `unauthorized` from a proxy; what `body` throws.
   */
  async request(first: HttpRequest): Promise<HttpResponse> {
    for (let request = first; ;) {
      try {
        const response = await this.#requestOnce(request);
        if (response.status === 407) throw this.#proxyRefusal(response);
        this.#reached = true;
        const refused = response.status === 417 && request.expectContinue === true;
        if (!refused || this.#refusesExpect) return response;
        discard(response);
        this.#refusesExpect = true;
      } catch (error) {
        // Nothing was lost with a kept connection that the server has closed: repeat at once.
        if (!(error instanceof StaleConnectionError)) throw error;
        request = repeated(first);
      }
    }
  }

  /** Idempotent. */
  close(): void {
    this.#closed = true;
    this.#route?.agent.destroy();
  }

  async #requestOnce(given: HttpRequest): Promise<HttpResponse> {
    const { send, agent, hostname, port, pathPrefix, headers } = this.#route ?? (await this.#openRoute());
    if (this.#closed) throw cannot('aborted', given.action, 'the client is closed');
    const { method, path, signal } = given;
    const expects = given.expectContinue === true && !this.#refusesExpect;
    const request = given.expectContinue === true && !expects ? { ...given, expectContinue: false } : given;
    const options: RequestOptions = {
      agent,
      hostname,
      port,
      method,
      path: `${pathPrefix}${path}`,
      headers: { ...headers, ...request.headers, ...(expects && { Expect: '100-continue' }) },
    };
    if (signal !== undefined) options.signal = signal;
    return await new Promise<HttpResponse>((resolve, reject) => {
      const sent = send(options);
      new RequestAttempt({
        sent,
        request,
        options: this.#options,
        peer: this.#peer,
        resolve,
        reject,
      }).start();
    });
  }

  #proxyRefusal(response: HttpResponse): FiletrackerError {
    discard(response);
    const state = 'the proxy requires a user name and a password; put them into its URL';
    return cannot('unauthorized', `reach ${this.#peer}`, state);
  }

  async #openRoute(): Promise<Route> {
    const proxy = proxyFor(this.address, this.#options.proxy);
    if (proxy !== undefined) this.#peer = `"${this.address.shown}" through the proxy "${proxy.shown}"`;
    this.#opening ??= openRoute(this.address, proxy, this.#options);
    return (this.#route = await this.#opening);
  }
}

/** @throws FiletrackerError `invalid-argument` for certificates that cannot be used. */
async function openRoute(
  address: ServerAddress,
  proxy: ServerAddress | undefined,
  { connections, connectTimeoutMs, tls }: ConnectionOptions,
): Promise<Route> {
  const { secure, host: hostname, port, hostHeader, prefix } = address;
  const pool: AgentOptions = { keepAlive: true, maxSockets: connections, scheduling: 'lifo' };
  const authorization = address.authorization !== undefined && { Authorization: address.authorization };
  // Node's own Host header would have the zone of an IPv6 address in it.
  const host = hostname.includes('%') && { Host: hostHeader };
  const straight = { hostname, port, pathPrefix: prefix, headers: { ...host, ...authorization } };
  if (proxy === undefined && !secure) return { ...straight, agent: new Agent(pool), send: plainRequest };
  // Loaded on demand: a program that runs for a tenth of a second cannot wait for TLS.
  const { openAgent, openTunnels, request } = await import('./tls-agents.ts');
  if (proxy === undefined) return { ...straight, agent: openAgent(pool, tls), send: request };
  if (secure) {
    const agent = openTunnels(pool, tls, { address, proxy, timeoutMs: connectTimeoutMs });
    return { ...straight, agent, send: request };
  }
  return {
    hostname: proxy.host,
    port: proxy.port,
    pathPrefix: `http://${hostHeader}${prefix}`,
    headers: { Host: hostHeader, ...proxyAuthorization(proxy), ...authorization },
    // The certificate of this client is for the server alone.
    agent: proxy.secure ? openAgent(pool, { ca: tls.ca }) : new Agent(pool),
    send: proxy.secure ? request : plainRequest,
  };
}
