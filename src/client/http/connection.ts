import type { RequestOptions } from 'node:http';
import { FiletrackerError } from '../../core/errors.ts';
import { discard } from './discarded-body.ts';
import { Exchange, StaleConnectionError } from './exchange.ts';
import type { ExchangeTimeouts, HttpAnswer, HttpRequest } from './exchange.ts';
import { openRoute } from './route.ts';
import type { Route, RouteOptions } from './route.ts';
import { abortedError } from './retries.ts';
import type { ServerAddress } from './server-address.ts';

export interface ConnectionOptions extends ExchangeTimeouts, RouteOptions {}

/**
 * Keep-alive connections to one server. Node's own client, and not a faster one, because the server is asked
 * with `Expect: 100-continue`, which others do not send, and because a program that runs for a tenth of a
 * second can't spend a third of that on loading one.
 */
export class HttpConnection {
  readonly address: ServerAddress;
  readonly #options: ConnectionOptions;
  #route: Route | undefined;
  #opening: Promise<Route> | undefined;
  #peer: string;
  #closed = false;
  #reached = false;
  /** Whether the server, or a proxy before it, refuses to be asked before a body is sent. */
  #refusesExpect = false;

  constructor(address: ServerAddress, options: ConnectionOptions) {
    this.address = address;
    this.#options = options;
    this.#peer = `"${address.shown}"`;
  }

  /**
   * Sends one request and resolves with the head of the answer.
   * @throws FiletrackerError `unreachable`, `timeout`, `aborted`, and what `body` throws.
   */
  async request(first: HttpRequest): Promise<HttpAnswer> {
    for (let request = first; ;) {
      try {
        const answer = await this.#requestOnce(request);
        if (answer.status === 407) throw this.#proxyRefusal(answer);
        this.#reached = true;
        if (answer.status !== 417 || request.expectContinue !== true || this.#refusesExpect) return answer;
        discard(answer.body);
        this.#refusesExpect = true;
      } catch (error) {
        // The server closed a kept connection just when we used it: nothing was lost, ask again at once.
        if (!(error instanceof StaleConnectionError)) throw error;
        request = { ...first, headers: { ...first.headers, ...first.repeatHeaders?.() } };
      }
    }
  }

  #proxyRefusal({ body }: HttpAnswer): FiletrackerError {
    discard(body);
    const state = 'the proxy asks for a user name and a password; put them into its URL';
    return new FiletrackerError('unauthorized', `Cannot reach ${this.#peer}: ${state}`);
  }

  /** Whether the server has ever answered. */
  get reached(): boolean {
    return this.#reached;
  }

  /** The server as messages name it, with the proxy before it. */
  get peer(): string {
    return this.#peer;
  }

  /** Idempotent. */
  close(): void {
    this.#closed = true;
    this.#route?.agent.destroy();
  }

  async #openRoute(): Promise<Route> {
    this.#opening ??= openRoute(this.address, this.#options);
    this.#route = await this.#opening;
    const { proxy } = this.#route;
    if (proxy !== undefined) this.#peer = `"${this.address.shown}" through the proxy "${proxy.shown}"`;
    return this.#route;
  }

  async #requestOnce(request: HttpRequest): Promise<HttpAnswer> {
    const route = this.#route ?? (await this.#openRoute());
    if (this.#closed) throw abortedError(request.action);
    const { address } = this;
    const headers: Record<string, string | number> = { ...route.headers, ...request.headers };
    if (address.authorization !== undefined) headers['Authorization'] = address.authorization;
    const asks = request.expectContinue === true && !this.#refusesExpect;
    if (asks) headers['Expect'] = '100-continue';
    const options: RequestOptions = {
      agent: route.agent,
      hostname: route.hostname,
      port: route.port,
      method: request.method,
      path: `${route.origin}${address.prefix}${request.path}`,
      headers,
    };
    if (request.signal !== undefined) options.signal = request.signal;
    return await new Promise<HttpAnswer>((resolve, reject) => {
      const sent = route.send(options);
      const given = asks === request.expectContinue ? request : { ...request, expectContinue: asks };
      new Exchange({
        sent,
        request: given,
        timeouts: this.#options,
        peer: this.#peer,
        resolve,
        reject,
      }).start();
    });
  }
}
