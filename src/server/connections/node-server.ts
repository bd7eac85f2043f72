import { createServer, type Server, type ServerOptions } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { Server as TlsServer } from 'node:tls';
import type { TlsMaterial } from '../../access/tls-files.ts';
import { headersSizeMaxBytes } from '../../core/limits.ts';

/** How long the parts of a request may take. */
export interface ServerTimeouts {
  /** For the headers of a request to arrive. */
  readonly headersMs: number;
  /** Without a byte of a body that comes or of an answer that goes out. */
  readonly stallMs: number;
  /** Between two requests. */
  readonly idleMs: number;
}

function httpOptions(timeouts: ServerTimeouts): ServerOptions {
  return {
    maxHeaderSize: headersSizeMaxBytes,
    headersTimeout: timeouts.headersMs,
    keepAliveTimeout: timeouts.idleMs,
    connectionsCheckingInterval: Math.min(1000, timeouts.headersMs),
    // An upload may take hours; that it goes on is what the stall time-out sees to.
    requestTimeout: 0,
    noDelay: true,
    // Looked at where all other mistakes are, because Node answers this one without a text.
    requireHostHeader: false,
  };
}

function tlsOptions(tls: TlsMaterial): object {
  const { key, certificate: cert, clientAuthorities: ca } = tls;
  // A client may show a certificate and need not: who shows none can still send a token. One that is shown
  // must be good, which is looked at when the connection is there, because Node asks for both or for none.
  return { key, cert, ...(ca !== undefined && { ca, requestCert: true, rejectUnauthorized: false }) };
}

/** A server of node:http, or of node:https where there is something to speak TLS with. */
export function createNodeServer(timeouts: ServerTimeouts, tls: TlsMaterial | undefined): Server {
  const options = httpOptions(timeouts);
  const server: Server =
    tls === undefined
      ? createServer(options)
      : createTlsServer({
          ...options,
          ...tlsOptions(tls),
          minVersion: 'TLSv1.2',
          handshakeTimeout: timeouts.headersMs,
        });
  server.timeout = timeouts.stallMs;
  server.maxHeadersCount = 0; // Their size is bounded; a header that were silently dropped could change a meaning.
  // A client that shuts down its sending side still wants its answer.
  Object.assign(server, { httpAllowHalfOpen: true });
  return server;
}

/** Takes new keys and certificates for the connections to come; those that are there keep theirs. */
export function replaceTlsMaterial(server: Server, tls: TlsMaterial): void {
  (server as unknown as TlsServer).setSecureContext(tlsOptions(tls));
}
