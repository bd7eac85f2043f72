import { Agent, request } from 'node:http';
import type { AgentOptions } from 'node:http';
import type { TlsOptions } from './certificate-files.ts';
import { proxyFor } from './proxies.ts';
import type { ProxySetting } from './proxies.ts';
import type { ServerAddress } from './server-address.ts';

export interface RouteOptions {
  /** Connections kept open to the server. */
  readonly connections: number;
  readonly connectTimeoutMs: number;
  readonly tls: TlsOptions;
  readonly proxy?: ProxySetting;
}

/** The way to a server, straight or through a proxy, with the connections that are kept open. */
export interface Route {
  readonly agent: Agent;
  readonly send: typeof request;
  readonly hostname: string;
  readonly port: number;
  /** Stands before the path of each request: empty, or the origin of the server for a proxy. */
  readonly origin: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly proxy: ServerAddress | undefined;
}

/** @throws FiletrackerError `invalid-argument` for a proxy or certificates that cannot be used. */
export async function openRoute(address: ServerAddress, options: RouteOptions): Promise<Route> {
  const pool: AgentOptions = { keepAlive: true, maxSockets: options.connections, scheduling: 'lifo' };
  const proxy = proxyFor(address, options.proxy);
  const zoned = address.host.includes('%');
  const straight = {
    hostname: address.host,
    port: address.port,
    origin: '',
    headers: zoned ? { Host: address.hostHeader } : {},
    proxy,
  };
  if (proxy === undefined && !address.secure) return { ...straight, agent: new Agent(pool), send: request };
  // Loaded for those who need it: a program that runs for a tenth of a second can't wait for TLS.
  const secure = await import('./secure-route.ts');
  if (proxy === undefined) {
    return { ...straight, agent: secure.openAgent(pool, options.tls), send: secure.request };
  }
  if (address.secure) {
    const tunnel = { address, proxy, timeoutMs: options.connectTimeoutMs };
    return { ...straight, agent: secure.openTunnels(pool, options.tls, tunnel), send: secure.request };
  }
  const { authorization } = proxy;
  return {
    // The certificate of this client is for the server alone.
    agent: proxy.secure ? secure.openAgent(pool, { ca: options.tls.ca }) : new Agent(pool),
    send: proxy.secure ? secure.request : request,
    hostname: proxy.host,
    port: proxy.port,
    origin: `http://${address.hostHeader}`,
    headers: {
      Host: address.hostHeader,
      ...(authorization !== undefined && { 'Proxy-Authorization': authorization }),
    },
    proxy,
  };
}
