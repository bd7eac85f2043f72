import { createServer, request as httpRequest, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { pipeline } from 'node:stream';
import { listening } from './web-server.ts';

export interface ForwardProxy {
  readonly port: number;
  /** What the proxy was asked, as `GET http://a.test/x` or `CONNECT a.test:443`, and by whom. */
  readonly asked: string[];
  readonly credentials: (string | undefined)[];
}

/**
 * An HTTP proxy for the running test alone. All hosts are 127.0.0.1 to it, and `ports` says which port each
 * host stands for. `refuses` is a status that it answers everything with.
 */
export async function forwardProxy(
  ports: Readonly<Record<string, number>>,
  refuses?: number,
): Promise<ForwardProxy> {
  const asked: string[] = [];
  const credentials: (string | undefined)[] = [];
  const note = ({ method, url, headers }: IncomingMessage): void => {
    asked.push(`${method} ${url}`);
    credentials.push(headers['proxy-authorization']);
  };
  const server = createServer((request, response) => {
    note(request);
    const { hostname, pathname, search } = new URL(request.url ?? '');
    if (refuses !== undefined) {
      response.writeHead(refuses).end();
      return;
    }
    const { 'proxy-authorization': _, ...headers } = request.headers;
    const passed = httpRequest(
      { host: '127.0.0.1', port: ports[hostname], method: request.method, path: pathname + search, headers },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        pipeline(answer, response, () => undefined);
      },
    );
    pipeline(request, passed, () => undefined);
  });
  server.on('connect', (request, socket) => {
    note(request);
    if (refuses !== undefined) {
      socket.end(`HTTP/1.1 ${refuses} Refused\r\n\r\n`);
      return;
    }
    const [host = ''] = request.url?.split(':') ?? [];
    const target = connect({ host: '127.0.0.1', port: ports[host] ?? 0 }, () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
      pipeline(socket, target, () => undefined);
      pipeline(target, socket, () => undefined);
    });
    target.on('error', () => socket.destroy());
    socket.on('error', () => target.destroy());
  });
  return { port: await listening(server), asked, credentials };
}
