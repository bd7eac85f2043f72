import type { S3Client, S3ClientConfig, ServiceOutputTypes } from '@aws-sdk/client-s3';
import type * as s3Library from '@aws-sdk/client-s3';
import type { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import type { Encoding } from '../../core/blob.ts';
import type { CallObserver } from '../../core/report.ts';
import { FiletrackerError, isFiletrackerError, type ErrorCode } from '../../core/errors.ts';
import { timerMs } from '../../core/timers.ts';
import { BodyDigest } from './body-digest.ts';

export interface S3ConnectionOptions {
  readonly bucket: string;
  /** Before every key: empty, or ending in a slash. */
  readonly prefix?: string | undefined;
  /** Base URL of a server other than Amazon's. Its URLs are path-style unless `addressing` says otherwise. */
  readonly endpoint?: string | undefined;
  /** Whether the bucket is part of the path or of the host name; few servers support only the latter. */
  readonly addressing?: 'path' | 'virtual-host' | undefined;
  /** Base URL of the same server for clients that read from it directly, if it differs. */
  readonly publicEndpoint?: string | undefined;
  readonly region?: string | undefined;
  /** By default as the AWS SDK finds them: environment, profile, instance. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined;
  /** Longest time of an operation, retries included; a part of an upload may take four times as long. */
  readonly timeoutMs?: number | undefined;
  /** Connections at most. */
  readonly connectionsMax?: number | undefined;
  /**
   * Whether requests carry, and responses are checked for, checksums that the protocol leaves optional. Many
   * servers other than Amazon's refuse checksums that they do not know.
   */
  readonly checksums?: 'when-required' | 'when-supported' | undefined;
  /** Called after every operation. */
  readonly onCall?: CallObserver | undefined;
}

const s3Defaults = { region: 'us-east-1', timeoutMs: 15_000, connectionsMax: 128 } as const;

/** Every action, as errors name it, and the label that metrics count it by. */
const operations = {
  'open a blob': 'read',
  'look at a blob': 'look',
  'begin an upload': 'write',
  'write an upload': 'write',
  'place a blob': 'place',
  'discard an upload': 'discard',
  'remove a blob': 'remove',
  'list the object store': 'list',
  'list the uploads': 'list',
  'list the parts of an upload': 'list',
  'remove a probe': 'probe',
  'reach the object store': 'probe',
  'write to the object store and read from it': 'probe',
} as const;

type Action = keyof typeof operations;

interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** Four times the time, for uploads of large parts. */
  readonly slow?: boolean;
}

/** A command of the SDK by the type of its output. The SDK's own type of `send` cannot be passed on. */
interface Command<Output extends ServiceOutputTypes> {
  resolveMiddleware(...args: never[]): (...args: never[]) => Promise<{ readonly output: Output }>;
}

const spaceNames: ReadonlySet<string> = new Set(['QuotaExceeded', 'XMinioStorageFull']);

/**
 * One bucket, through the AWS SDK, which is loaded here and only here.
 *
 * Invariant: every operation ends within its time, with a response or with a FiletrackerError.
 */
export class S3Connection {
  readonly library: typeof s3Library;
  readonly client: S3Client;
  readonly bucket: string;
  readonly prefix: string;
  readonly #timeoutMs: number;
  readonly #presigner: typeof getSignedUrl;
  /** Makes URLs, and no request. */
  readonly #publicClient: S3Client;
  readonly #onCall: CallObserver;
  /** Operations so far that the server failed to carry out. */
  failures = 0;

  private constructor(
    library: typeof s3Library,
    presigner: typeof getSignedUrl,
    options: S3ConnectionOptions,
  ) {
    this.library = library;
    this.#presigner = presigner;
    this.client = new library.S3Client(configurationOf(options));
    const { publicEndpoint: endpoint } = options;
    this.#publicClient =
      endpoint === undefined ? this.client : new library.S3Client(configurationOf({ ...options, endpoint }));
    this.bucket = options.bucket;
    this.prefix = options.prefix ?? '';
    this.#timeoutMs = options.timeoutMs ?? s3Defaults.timeoutMs;
    this.#onCall = options.onCall ?? ((): void => undefined);
  }

  /** Makes no connection yet. @throws FiletrackerError `invalid-argument` if the SDK is not installed. */
  static async create(options: S3ConnectionOptions): Promise<S3Connection> {
    try {
      const library = await import('@aws-sdk/client-s3');
      const presigner = await import('@aws-sdk/s3-request-presigner');
      return new S3Connection(library, presigner.getSignedUrl, options);
    } catch (error) {
      throw new FiletrackerError(
        'invalid-argument',
        'Cannot use S3: the packages "@aws-sdk/client-s3" and "@aws-sdk/s3-request-presigner" must be installed',
        { cause: error },
      );
    }
  }

  /** Bucket and key of an object, as commands take them. */
  at(key: string): { readonly Bucket: string; readonly Key: string } {
    return { Bucket: this.bucket, Key: `${this.prefix}${key}` };
  }

  /** Sends one command, as `run`. */
  send<Output extends ServiceOutputTypes>(
    action: Action,
    command: Command<Output>,
    options?: CallOptions,
  ): Promise<Output> {
    const sent = command as unknown as Parameters<S3Client['send']>[0];
    return this.run(
      action,
      (abortSignal) => this.client.send(sent, { abortSignal }) as Promise<Output>,
      options,
    );
  }

  /**
   * Runs one operation within its time.
   * @throws FiletrackerError as `fromS3Error` returns them, `aborted` if `signal` is.
   */
  async run<Result>(
    action: Action,
    operation: (signal: AbortSignal) => Promise<Result>,
    { signal, slow = false }: CallOptions = {},
  ): Promise<Result> {
    const startMs = performance.now();
    const ended = (failure: string | undefined): void =>
      this.#onCall(operations[action], performance.now() - startMs, failure);
    const controller = new AbortController();
    const abort = (): void => controller.abort();
    const timer = setTimeout(abort, timerMs(this.#timeoutMs * (slow ? 4 : 1)));
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted === true) abort();
    try {
      const result = await operation(controller.signal);
      ended(undefined);
      return result;
    } catch (error) {
      if (signal?.aborted === true) {
        // Says nothing of the server.
        ended(undefined);
        throw new FiletrackerError('aborted', `Cannot ${action}: it was aborted`, { cause: error });
      }
      const translated = fromS3Error(error, action);
      ended(controller.signal.aborted ? 'timeout' : failureOf(translated, error));
      if (isFiletrackerError(translated) && translated.retryable) this.failures += 1;
      throw translated;
    } finally {
      // An abort after this would cut off the body of a response that has only begun.
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    }
  }

  presign(key: string, lifetimeSeconds: number, encoding: Encoding): Promise<string> {
    const command = new this.library.GetObjectCommand({
      ...this.at(key),
      ...(encoding === 'gzip' && { ResponseContentEncoding: 'gzip' }),
    });
    return this.#presigner(this.#publicClient, command, {
      expiresIn: lifetimeSeconds,
      // By the server's clock, as known from its responses: by ours the URL could have expired already.
      signingDate: new Date(Date.now() + this.client.config.systemClockOffset),
    });
  }

  close(): void {
    this.client.destroy();
    this.#publicClient.destroy();
  }
}

function configurationOf(options: S3ConnectionOptions): S3ClientConfig {
  const timeoutMs = options.timeoutMs ?? s3Defaults.timeoutMs;
  const agent = { keepAlive: true, maxSockets: options.connectionsMax ?? s3Defaults.connectionsMax };
  const checksums = options.checksums === 'when-supported' ? 'WHEN_SUPPORTED' : 'WHEN_REQUIRED';
  return {
    region: options.region ?? process.env['AWS_REGION'] ?? s3Defaults.region,
    ...(options.endpoint !== undefined && {
      endpoint: options.endpoint,
      forcePathStyle: options.addressing !== 'virtual-host',
    }),
    ...(options.credentials !== undefined && { credentials: { ...options.credentials } }),
    requestChecksumCalculation: checksums,
    responseChecksumValidation: checksums,
    maxAttempts: 3,
    // Not every server or proxy sends "100 Continue". Each part would then wait for seconds, and the SDK sends such
    // requests over connections that it opens for one request and does not count.
    expectContinueHeader: false,
    sha256: BodyDigest,
    requestHandler: {
      connectionTimeout: Math.min(5_000, timeoutMs),
      // Idle time, of bodies too.
      socketTimeout: timeoutMs,
      httpAgent: agent,
      httpsAgent: agent,
    },
  };
}

function describe(error: unknown): { readonly name: string; readonly status: number | undefined } {
  if (!(error instanceof Error)) return { name: '', status: undefined };
  const metadata = '$metadata' in error ? error.$metadata : undefined;
  const known = typeof metadata === 'object' && metadata !== null && 'httpStatusCode' in metadata;
  const status = known && typeof metadata.httpStatusCode === 'number' ? metadata.httpStatusCode : undefined;
  return { name: error.name, status };
}

/** Why an operation failed, as a metrics label. A missing object is no failure. */
function failureOf(translated: unknown, error: unknown): string | undefined {
  if (!isFiletrackerError(translated)) return 'failure';
  if (translated.code === 'not-found' || translated.code === 'range-not-satisfiable') return undefined;
  const { name, status } = describe(error);
  if (status === undefined) return name === 'TimeoutError' ? 'timeout' : translated.code;
  return /^[A-Z][A-Za-z]{2,40}$/.test(name) ? name : String(status);
}

/** Whether the object does not exist; not whether the bucket does not. */
export function isAbsence(error: unknown): boolean {
  const { name, status } = describe(isFiletrackerError(error) ? error.cause : error);
  return status === 404 && name !== 'NoSuchBucket';
}

/** Whether the server refused the request, rather than failed or was not reached. */
export function isRefusal(error: unknown): boolean {
  const { status = 0 } = describe(isFiletrackerError(error) ? error.cause : error);
  return status >= 400 && status < 500;
}

/** Whether a range begins beyond the end. */
export function isBeyondEnd(error: unknown): boolean {
  return describe(isFiletrackerError(error) ? error.cause : error).status === 416;
}

/** Translates errors of the SDK by their status; without one (no connection, no response in time) to `unavailable`. */
function fromS3Error(error: unknown, action: string): unknown {
  if (isFiletrackerError(error) || error instanceof TypeError || error instanceof RangeError) return error;
  const { name, status } = describe(error);
  const translated = (code: ErrorCode, state: string): FiletrackerError =>
    new FiletrackerError(code, `Cannot ${action}: ${state}`, { cause: error });
  if (name === 'CredentialsProviderError') {
    return translated('unavailable', 'there are no credentials for the object store');
  }
  if (status === 507 || spaceNames.has(name)) return translated('no-space', 'the object store is full');
  if (name === 'EntityTooLarge') return translated('too-large', 'it is larger than the object store accepts');
  if (status === 404 && name !== 'NoSuchBucket') return translated('not-found', 'there is no such object');
  if (status === 416) return translated('range-not-satisfiable', 'the range begins beyond the end');
  return new FiletrackerError('unavailable', `Cannot ${action}: ${stateOf(name, status)}`, {
    cause: error,
    details: { retryAfterSeconds: 2 },
  });
}

/** The name that S3 gives an error says more than its status. */
function stateOf(name: string, status: number | undefined): string {
  if (name === 'NoSuchBucket') return 'there is no such bucket';
  if (status === undefined) return 'the object store does not respond';
  const named = /^[A-Za-z]{3,40}$/.test(name) && name !== 'Error' ? ` (${name})` : '';
  return `the object store responded with ${status}${named}`;
}
