// Connections by TLS, straight or through a proxy that is asked with CONNECT.
import { request as plainRequest } from 'node:http';
import type { AgentOptions, ClientRequest, IncomingMessage } from 'node:http';
import { Agent, request } from 'node:https';
import type { RequestOptions } from 'node:https';
import type { Duplex } from 'node:stream';
import type { ConnectionOptions } from 'node:tls';
import { FiletrackerError } from '../../core/errors.ts';
import type { TlsOptions } from './certificate-files.ts';
import type { ServerAddress } from './server-address.ts';
import { secureContextOf } from './trusted-authorities.ts';

export { request };

type SecureAgentOptions = AgentOptions & Pick<ConnectionOptions, 'secureContext'>;

function withContext(pool: AgentOptions, tls: TlsOptions): SecureAgentOptions {
  return { ...pool, secureContext: secureContextOf(tls, process.env) };
}

export function openAgent(pool: AgentOptions, tls: TlsOptions): Agent {
  return new Agent(withContext(pool, tls));
}

interface Tunnel {
  readonly address: ServerAddress;
  readonly proxy: ServerAddress;
  readonly timeoutMs: number;
}

type OnConnection = (error: Error | null, socket?: Duplex) => void;

export function openTunnels(pool: AgentOptions, tls: TlsOptions, tunnel: Tunnel): Agent {
  return new TunnelAgent(
    withContext(pool, tls),
    tunnel,
    // The proxy is asked on a connection of its own each time: it becomes the tunnel.
    tunnel.proxy.secure
      ? openAgent({ ...pool, keepAlive: false, maxSockets: Infinity }, { ca: tls.ca })
      : undefined,
  );
}

class TunnelAgent extends Agent {
  readonly #tunnel: Tunnel;
  readonly #proxyAgent: Agent | undefined;

  constructor(options: SecureAgentOptions, tunnel: Tunnel, proxyAgent: Agent | undefined) {
    super(options);
    this.#tunnel = tunnel;
    this.#proxyAgent = proxyAgent;
  }

  override createConnection(options: RequestOptions, callback: OnConnection): undefined {
    const { address, proxy, timeoutMs } = this.#tunnel;
    const { hostHeader } = address;
    const target = /:\d+$/.test(hostHeader) ? hostHeader : `${hostHeader}:${address.port}`;
    const { authorization } = proxy;
    const asked = (this.#proxyAgent === undefined ? plainRequest : request)({
      agent: this.#proxyAgent ?? false,
      hostname: proxy.host,
      port: proxy.port,
      method: 'CONNECT',
      path: target,
      headers: {
        Host: target,
        ...(authorization !== undefined && { 'Proxy-Authorization': authorization }),
      },
    });
    this.#takeAnswer(asked, timeoutMs, (error, socket) => {
      if (socket === undefined) callback(error);
      else callback(null, this.#secured({ ...options, socket }));
    });
    return undefined;
  }

  /** TLS with the server, through the tunnel. */
  #secured(options: RequestOptions & Pick<ConnectionOptions, 'socket'>): Duplex | undefined {
    return super.createConnection(options) ?? undefined;
  }

  #takeAnswer(asked: ClientRequest, timeoutMs: number, callback: OnConnection): void {
    const { shown } = this.#tunnel.proxy;
    const refuse = (code: 'timeout' | 'unauthorized' | 'unavailable', state: string): FiletrackerError =>
      new FiletrackerError(code, `Cannot use the proxy "${shown}": ${state}`);
    const timer = setTimeout(() => asked.destroy(refuse('timeout', 'it does not answer')), timeoutMs);
    asked.once('connect', (answer: IncomingMessage, socket: Duplex) => {
      clearTimeout(timer);
      const { statusCode = 0 } = answer;
      if (statusCode >= 200 && statusCode < 300) {
        callback(null, socket);
        return;
      }
      socket.destroy();
      callback(refusal(statusCode, refuse));
    });
    asked.once('response', (answer) => {
      clearTimeout(timer);
      answer.destroy();
      callback(refusal(answer.statusCode ?? 0, refuse));
    });
    asked.once('error', (error) => {
      clearTimeout(timer);
      callback(error);
    });
    asked.end();
  }
}

function refusal(
  status: number,
  refuse: (code: 'unauthorized' | 'unavailable', state: string) => FiletrackerError,
): FiletrackerError {
  return status === 407
    ? refuse('unauthorized', 'it asks for a user name and a password; put them into its URL')
    : refuse('unavailable', `it answered ${status} when asked for a connection`);
}
