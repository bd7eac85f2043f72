import { FiletrackerError } from '../../core/errors.ts';
import { timerMs } from '../../core/timers.ts';
import { requireCounts } from '../arguments.ts';
import type { TlsOptions } from './certificate-files.ts';
import type { ProxySetting } from './proxies.ts';
import type { RetryPolicy } from './retries.ts';

/**
 * How a server is reached.
 *
 * @example
 * ```ts
 * import { HttpTransport } from 'filetracker';
 * import type { HttpTransportOptions } from 'filetracker';
 *
 * const options: HttpTransportOptions = { connections: 4, stallTimeoutMs: 10_000, retries: { retryForMs: 60_000 } };
 * const { FILETRACKER_URL: url = '' } = process.env;
 * const transport = new HttpTransport(url, options);
 * transport.close();
 * ```
 */
export interface HttpTransportOptions {
  /** Maximum concurrent connections to the server; 16 unless given. */
  readonly connections?: number | undefined;
  /** Time limit for connecting, in milliseconds; 10,000 unless given. */
  readonly connectTimeoutMs?: number | undefined;
  /**
   * Longest time without a byte while the server is due to send or receive, in milliseconds; 30,000 unless given. A whole
   * transfer may take any time.
   */
  readonly stallTimeoutMs?: number | undefined;
  /** Time limit for the head of the response once the request is sent, in milliseconds; 600,000 unless given. */
  readonly answerTimeoutMs?: number | undefined;
  /** Requests that are safe to repeat are retried 4 times within 1.5 s unless given. The client waits no longer for any server. */
  readonly retries?: Partial<RetryPolicy> | undefined;
  /** Certificates for https, as PEM text. */
  readonly tls?: TlsOptions | undefined;
  /**
   * URL of an HTTP proxy, or `false` for none. Unless given, HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY apply, except
   * to servers on this machine.
   */
  readonly proxy?: ProxySetting;
}

type Counts = 'connections' | 'connectTimeoutMs' | 'stallTimeoutMs' | 'answerTimeoutMs';

/** The options of a connection, with defaults filled in. */
export interface ConnectionOptions extends Readonly<Record<Counts, number>> {
  readonly tls: TlsOptions;
  readonly proxy: ProxySetting;
}

/** @throws FiletrackerError `invalid-argument` for counts and times that are not whole numbers. */
export function checkTransportOptions(options: HttpTransportOptions): void {
  const { connections, connectTimeoutMs, stallTimeoutMs, answerTimeoutMs, retries } = options;
  requireCounts({ connections, connectTimeoutMs, stallTimeoutMs, answerTimeoutMs }, 1);
  requireCounts({ ...retries }, 0);
}

/** @throws FiletrackerError `invalid-argument`, also for a certificate without its key. */
export function connectionOptionsOf(options: HttpTransportOptions): ConnectionOptions {
  checkTransportOptions(options);
  const tls = options.tls ?? {};
  if ((tls.cert === undefined) !== (tls.key === undefined)) {
    const missing = tls.key === undefined ? 'key' : 'certificate';
    throw new FiletrackerError(
      'invalid-argument',
      `Cannot use a client certificate: its ${missing} is missing`,
    );
  }
  return {
    connections: options.connections ?? 16,
    connectTimeoutMs: timerMs(options.connectTimeoutMs ?? 10_000),
    stallTimeoutMs: timerMs(options.stallTimeoutMs ?? 30_000),
    answerTimeoutMs: timerMs(options.answerTimeoutMs ?? 600_000),
    tls,
    proxy: options.proxy,
  };
}
