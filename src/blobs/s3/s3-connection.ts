import type { S3Client, S3ClientConfig } from '@aws-sdk/client-s3';
import type * as s3Library from '@aws-sdk/client-s3';
import type { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import type { Encoding } from '../../core/blob.ts';
import type { CallObserver } from '../../core/report.ts';
import { FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import { timerMs } from '../../core/timers.ts';
import { BodyDigest } from './body-digest.ts';

/** How the object store is reached. */
export interface S3ConnectionOptions {
  readonly bucket: string;
  /** Before every key: empty, or ending in a slash. */
  readonly prefix?: string | undefined;
  /** Base address of a server other than Amazon's; addresses are path-style then, unless `addressing` says otherwise. */
  readonly endpoint?: string | undefined;
  /** Whether the bucket stands in the path, or before the name of the host: few servers know the latter only. */
  readonly addressing?: 'path' | 'virtual-host' | undefined;
  /** Address of the same server for who reads from it directly, where that is another one. */
  readonly publicEndpoint?: string | undefined;
  readonly region?: string | undefined;
  /** By default as the AWS SDK finds them: environment, profile, instance. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined;
  /** Longest time that an operation may take, retries and all; a part of an upload may take four times as long. */
  readonly timeoutMs?: number | undefined;
  /** Connections at most. */
  readonly connectionsMax?: number | undefined;
  /**
   * Whether requests carry, and answers are checked for, checksums where the protocol leaves it open. Many
   * servers other than Amazon's refuse what they don't know.
   */
  readonly checksums?: 'when-required' | 'when-supported' | undefined;
  /** Told of every operation. */
  readonly onCall?: CallObserver | undefined;
}

const s3Defaults = { region: 'us-east-1', timeoutMs: 15_000, connectionsMax: 128 } as const;

export type S3Library = typeof s3Library;

/** What is done, as it is said where it fails, and the word that is counted for it. */
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

const spaceNames: ReadonlySet<string> = new Set(['QuotaExceeded', 'XMinioStorageFull']);

/**
 * One bucket, through the AWS SDK, which is loaded here and only here.
 *
 * Invariant: every operation ends within its time, by an answer or by an error of ours.
 */
export class S3Connection {
  readonly library: S3Library;
  readonly client: S3Client;
  readonly bucket: string;
  readonly prefix: string;
  readonly #timeoutMs: number;
  readonly #presigner: typeof getSignedUrl;
  /** Makes addresses, and no request. */
  readonly #publicClient: S3Client;
  readonly #onCall: CallObserver;
  /** Operations so far that the server did not carry out, for reasons of its own. */
  failures = 0;

  private constructor(
    library: S3Library,
    presigner: typeof getSignedUrl,
    client: S3Client,
    options: S3ConnectionOptions,
  ) {
    this.library = library;
    this.#presigner = presigner;
    this.client = client;
    const { publicEndpoint: endpoint } = options;
    this.#publicClient =
      endpoint === undefined ? client : new library.S3Client(configurationOf({ ...options, endpoint }));
    this.bucket = options.bucket;
    this.prefix = options.prefix ?? '';
    this.#timeoutMs = options.timeoutMs ?? s3Defaults.timeoutMs;
    this.#onCall = options.onCall ?? ((): void => undefined);
  }

  /** Makes no connection yet. @throws FiletrackerError `invalid-argument` where the SDK is not installed. */
  static async create(options: S3ConnectionOptions): Promise<S3Connection> {
    try {
      const library = await import('@aws-sdk/client-s3');
      const presigner = await import('@aws-sdk/s3-request-presigner');
      const client = new library.S3Client(configurationOf(options));
      return new S3Connection(library, presigner.getSignedUrl, client, options);
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

  /**
   * Runs one operation within its time; `slow` gives it four times that, for uploads of large parts.
   * @throws FiletrackerError as `fromS3Error` gives them, `aborted` where `signal` says so.
   */
  async run<Result>(
    action: keyof typeof operations,
    operation: (signal: AbortSignal) => Promise<Result>,
    options: { readonly signal?: AbortSignal | undefined; readonly slow?: boolean } = {},
  ): Promise<Result> {
    const { signal, slow = false } = options;
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
        // By who asked: it says nothing of the server.
        ended(undefined);
        throw new FiletrackerError('aborted', `Cannot ${action}: it was aborted`, { cause: error });
      }
      const translated = fromS3Error(error, action);
      ended(controller.signal.aborted ? 'timeout' : failureOf(translated, error));
      if (isFiletrackerError(translated) && translated.retryable) this.failures += 1;
      throw translated;
    } finally {
      // An abort after this would cut the body of an answer that has only begun.
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
      // By the server's clock, as far as its answers have told of it: by ours the address could have ended already.
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
    // Not every server, nor every proxy before one, says "continue"; each part would then wait for seconds, and the
    // SDK sends such requests over connections that it makes for one request and does not count.
    expectContinueHeader: false,
    sha256: BodyDigest,
    requestHandler: {
      connectionTimeout: Math.min(5_000, timeoutMs),
      // Idle time, of bodies too: a server that falls silent within an answer cuts it.
      socketTimeout: timeoutMs,
      httpAgent: agent,
      httpsAgent: agent,
    },
  };
}

/** What a failed operation says of itself. */
function describe(error: unknown): { readonly name: string; readonly status: number | undefined } {
  if (!(error instanceof Error)) return { name: '', status: undefined };
  const metadata = '$metadata' in error ? error.$metadata : undefined;
  const known = typeof metadata === 'object' && metadata !== null && 'httpStatusCode' in metadata;
  const status = known && typeof metadata.httpStatusCode === 'number' ? metadata.httpStatusCode : undefined;
  return { name: error.name, status };
}

/** Why an operation failed, in a word: that of the server where it has one. That an object is not there is an answer. */
function failureOf(translated: unknown, error: unknown): string | undefined {
  if (!isFiletrackerError(translated)) return 'failure';
  if (translated.code === 'not-found' || translated.code === 'range-not-satisfiable') return undefined;
  const { name, status } = describe(error);
  if (status === undefined) return name === 'TimeoutError' ? 'timeout' : translated.code;
  return /^[A-Z][A-Za-z]{2,40}$/.test(name) ? name : String(status);
}

/** Whether the server says that there is no such object (and not that there is no such bucket). */
export function isAbsence(error: unknown): boolean {
  const { name, status } = describe(isFiletrackerError(error) ? error.cause : error);
  return status === 404 && name !== 'NoSuchBucket';
}

/** Whether the server has answered, and refused: not where it failed, or was not heard. */
export function isRefusal(error: unknown): boolean {
  const { status = 0 } = describe(isFiletrackerError(error) ? error.cause : error);
  return status >= 400 && status < 500;
}

/** Whether the server says that a range begins beyond the end. */
export function isBeyondEnd(error: unknown): boolean {
  return describe(isFiletrackerError(error) ? error.cause : error).status === 416;
}

/**
 * Translates what the SDK throws: refusals by their status, and what has none (no connection, no answer in
 * time) as `unavailable`. Our own bugs come back as they are.
 */
function fromS3Error(error: unknown, action: string): unknown {
  if (isFiletrackerError(error) || error instanceof TypeError || error instanceof RangeError) return error;
  const { name, status } = describe(error);
  if (name === 'CredentialsProviderError') {
    return new FiletrackerError(
      'unavailable',
      `Cannot ${action}: there are no credentials for the object store`,
      {
        cause: error,
      },
    );
  }
  if (status === 507 || spaceNames.has(name)) {
    return new FiletrackerError('no-space', `Cannot ${action}: the object store is full`, { cause: error });
  }
  if (name === 'EntityTooLarge') {
    const text = `Cannot ${action}: it is larger than the object store takes`;
    return new FiletrackerError('too-large', text, { cause: error });
  }
  if (status === 404 && name !== 'NoSuchBucket') {
    return new FiletrackerError('not-found', `Cannot ${action}: there is no such object`, { cause: error });
  }
  if (status === 416) {
    return new FiletrackerError(
      'range-not-satisfiable',
      `Cannot ${action}: the range begins beyond the end`,
      {
        cause: error,
      },
    );
  }
  return new FiletrackerError('unavailable', `Cannot ${action}: ${stateOf(name, status)}`, {
    cause: error,
    details: { retryAfterSeconds: 2 },
  });
}

/** The name that S3 gives an error says more than its status, and holds nothing but letters. */
function stateOf(name: string, status: number | undefined): string {
  if (name === 'NoSuchBucket') return 'there is no such bucket';
  if (status === undefined) return 'the object store does not answer';
  const named = /^[A-Za-z]{3,40}$/.test(name) && name !== 'Error' ? ` (${name})` : '';
  return `the object store answered ${status}${named}`;
}
