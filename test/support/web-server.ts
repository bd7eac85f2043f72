import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Server as NetServer } from 'node:net';
import { onTestFinished } from 'vitest';

export interface WebServer {
  readonly url: string;
  readonly port: number;
  readonly server: Server;
  /** The requests that came, as `PUT /files/a`. */
  readonly requests: string[];
  readonly headers: IncomingMessage['headers'][];
}

/** Certificates for a server by TLS, as PEM text. */
export interface Certificates {
  readonly key: string;
  readonly cert: string;
}

/** Listens on a free port of 127.0.0.1 until the running test is over. */
export async function listening(server: NetServer): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    if ('closeAllConnections' in server) (server as Server).closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

/** A web server for the running test alone, which answers as it is told. */
export async function webServer(answer: RequestListener, tls?: Certificates): Promise<WebServer> {
  const requests: string[] = [];
  const headers: IncomingMessage['headers'][] = [];
  const listener: RequestListener = (request, response) => {
    requests.push(`${request.method} ${request.url}`);
    headers.push(request.headers);
    answer(request, response);
  };
  const server = tls === undefined ? createServer(listener) : createTlsServer({ ...tls }, listener);
  server.on('checkContinue', listener);
  const port = await listening(server);
  return {
    url: `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`,
    port,
    server,
    requests,
    headers,
  };
}
