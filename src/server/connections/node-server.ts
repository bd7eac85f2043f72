import { createServer, type Server, type ServerOptions } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { Server as TlsServer } from 'node:tls';
import type { TlsMaterial } from '../../access/tls-files.ts';
import { headersSizeMaxBytes } from '../../core/limits.ts';

/** Time limits for the parts of a request. */
export interface ServerTimeouts {
  /** For the headers of a request to arrive. */
  readonly headersMs: number;
  /** Without a byte of a request body or of a response. */
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
    // An upload may take hours; the stall time-out checks its progress.
    requestTimeout: 0,
    noDelay: true,
    // Checked in refusals.ts, because Node's own response has no text.
    requireHostHeader: false,
  };
}

function tlsOptions(tls: TlsMaterial): object {
  const { key, certificate: cert, clientAuthorities: ca } = tls;
  // A client certificate is optional, because a client may send a token instead; if present, it must be valid. Node
  // enforces both or neither, so HttpServer checks validity.
  return { key, cert, ...(ca !== undefined && { ca, requestCert: true, rejectUnauthorized: false }) };
}

/** A server of node:http, or of node:https if there is TLS material. */
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
  server.maxHeadersCount = 0; // Their size is bounded; a silently dropped header could change the meaning.
  // A client that shuts down its sending side still expects its response.
  Object.assign(server, { httpAllowHalfOpen: true });
  return server;
}

/** Replaces keys and certificates for new connections. */
export function replaceTlsMaterial(server: Server, tls: TlsMaterial): void {
  (server as unknown as TlsServer).setSecureContext(tlsOptions(tls));
}

/** What Node adds to the announced time before it closes an idle connection; newer versions have it as a setting. */
const usualBufferMs = 1000;

/** Time until node:http closes an idle connection. */
export function idleCloseMs(server: Server): number {
  const buffer: unknown = 'keepAliveTimeoutBuffer' in server ? server.keepAliveTimeoutBuffer : undefined;
  return server.keepAliveTimeout + (typeof buffer === 'number' ? buffer : usualBufferMs);
}
