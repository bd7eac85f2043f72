// Connections by TLS, straight or through a proxy by CONNECT. Loaded on demand.
import { request as plainRequest, type AgentOptions, type IncomingMessage } from 'node:http';
import { Agent, request, type RequestOptions } from 'node:https';
import type { Duplex } from 'node:stream';
import type { ConnectionOptions } from 'node:tls';
import { cannot, type FiletrackerError } from '../../core/errors.ts';
import type { TlsOptions } from './certificate-files.ts';
import { proxyAuthorization } from './proxies.ts';
import type { ServerAddress } from './server-address.ts';
import { secureContextOf } from './trusted-authorities.ts';

export { request };

type SecureAgentOptions = AgentOptions & Pick<ConnectionOptions, 'secureContext'>;
type OnConnection = (error: Error | null, socket?: Duplex) => void;

interface Tunnel {
  readonly address: ServerAddress;
  readonly proxy: ServerAddress;
  readonly timeoutMs: number;
}

function withContext(pool: AgentOptions, tls: TlsOptions): SecureAgentOptions {
  return { ...pool, secureContext: secureContextOf(tls, process.env) };
}

export function openAgent(pool: AgentOptions, tls: TlsOptions): Agent {
  return new Agent(withContext(pool, tls));
}

export function openTunnels(pool: AgentOptions, tls: TlsOptions, tunnel: Tunnel): Agent {
  // Each connection to the proxy becomes a tunnel, so none is kept.
  const toProxy = { ...pool, keepAlive: false, maxSockets: Infinity };
  const proxyAgent = tunnel.proxy.secure ? openAgent(toProxy, { ca: tls.ca }) : undefined;
  return new TunnelAgent(withContext(pool, tls), tunnel, proxyAgent);
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
    this.#connect((error, socket) => {
      if (socket === undefined) callback(error);
      else callback(null, this.#secured({ ...options, socket }));
    });
    return undefined;
  }

  /** TLS with the server, through the tunnel. */
  #secured(options: RequestOptions & Pick<ConnectionOptions, 'socket'>): Duplex | undefined {
    return super.createConnection(options) ?? undefined;
  }

  /** Requests a connection to the server from the proxy. */
  #connect(callback: OnConnection): void {
    const { address, proxy, timeoutMs } = this.#tunnel;
    const { hostHeader, port } = address;
    const target = /:\d+$/.test(hostHeader) ? hostHeader : `${hostHeader}:${port}`;
    const sent = (this.#proxyAgent === undefined ? plainRequest : request)({
      agent: this.#proxyAgent ?? false,
      hostname: proxy.host,
      port: proxy.port,
      method: 'CONNECT',
      path: target,
      headers: { Host: target, ...proxyAuthorization(proxy) },
    });
    const late = refusal(proxy, 'timeout', 'it does not answer');
    const timer = setTimeout(() => sent.destroy(late), timeoutMs);
    const settle: OnConnection = (error, socket) => {
      clearTimeout(timer);
      callback(error, socket);
    };
    sent.once('connect', (response: IncomingMessage, socket: Duplex) => {
      const { statusCode = 0 } = response;
      if (statusCode >= 200 && statusCode < 300) {
        settle(null, socket);
        return;
      }
      socket.destroy();
      settle(refusalOf(proxy, statusCode));
    });
    sent.once('response', (response) => {
      response.destroy();
      settle(refusalOf(proxy, response.statusCode ?? 0));
    });
    sent.once('error', settle);
    sent.end();
  }
}

function refusalOf(proxy: ServerAddress, status: number): FiletrackerError {
  return status === 407
    ? refusal(proxy, 'unauthorized', 'it requires a user name and a password; put them into its URL')
    : refusal(proxy, 'unavailable', `it responded to CONNECT with status ${status}`);
}

function refusal(
  { shown }: ServerAddress,
  code: 'timeout' | 'unauthorized' | 'unavailable',
  state: string,
): FiletrackerError {
  return cannot(code, `use the proxy "${shown}"`, state);
}
