import type { Logger } from 'pino';
import { systemClock, type Clock } from '../core/clock.ts';
import { listsMax } from '../core/limits.ts';
import { RateLimiter } from '../access/rate-limiter.ts';
import type { RateTable } from '../access/rate-table.ts';
import type { HttpServer, HttpServerOptions } from '../server/http-server.ts';
import { TokenAccess, type AnonymousAccess } from '../access/token-access.ts';
import type { FileStore } from '../store/file-store.ts';
import { LimitedFileStore } from '../store/limited-file-store.ts';
import type { GuardConfig } from '../config/guard-config.ts';
import { openTokens, type TokenPlace } from './open-tokens.ts';
import { StoreDisks } from './store-disks.ts';
import type { ServerLimits } from '../telemetry/server-metrics.ts';
import { readTlsMaterial, type TlsMaterial } from '../access/tls-files.ts';
import type { TokenSource } from '../access/token-source.ts';

export interface GuardOptions {
  readonly config: GuardConfig;
  /** Folder of the store, whose disk must not fill up. */
  readonly folder: string;
  /** Where the tokens are, if not there. */
  readonly engines: TokenPlace['engines'];
  /** Whether nothing is stored on the disk of that folder, so that its free space says nothing. */
  readonly storesElsewhere?: boolean | undefined;
  /**
   * Processes that serve this store. Bounds on what is under way are divided among them, so that they hold for the
   * store.
   */
  readonly workers: number;
  /** Which of them this is, from 0; the first ones take what is left over. */
  readonly worker?: number | undefined;
  /** Where they keep the rates of requests together; without it these are divided too. */
  readonly rates?: RateTable | undefined;
  readonly logger: Logger;
  readonly clock?: Clock;
}

/** @param host an address, not a name: "127.example.org" may be anywhere; or the path of a socket, for this machine. */
function isLoopback(host: string): boolean {
  return host === '::1' || host.startsWith('127.') || host.startsWith('::ffff:127.') || host.startsWith('/');
}

function anonymousAccess(config: GuardConfig, tokensConfigured: boolean): AnonymousAccess {
  return config.anonymous ?? (tokensConfigured ? 'none' : 'all');
}

/**
 * What an operator may not have meant about who reaches the server; undefined where there is nothing to say.
 * @param hosts the addresses that are listened on.
 */
export async function exposureOf(
  hosts: readonly string[],
  place: TokenPlace,
  config: GuardConfig,
): Promise<string | undefined> {
  const tokens = await openTokens(place, () => undefined);
  try {
    return exposureWith(tokens, hosts, place, config);
  } finally {
    await tokens.close();
  }
}

function exposureWith(
  { book, configured }: TokenSource,
  hosts: readonly string[],
  { engines }: TokenPlace,
  config: GuardConfig,
): string | undefined {
  if (book.unread) {
    const obstacle = engines.catalog === undefined ? 'file can be read' : 'database can be reached';
    return `TOKENS NOT READ: requests are answered with 503 until the ${obstacle}`;
  }
  if (book.lost) {
    const place =
      engines.catalog === undefined
        ? 'file "tokens.json" is gone; bring it'
        : 'table "token" is empty; bring them';
    return `TOKENS LOST: this store has had tokens, and its ${place} back, or add tokens anew`;
  }
  if (hosts.every((host) => isLoopback(host))) return undefined;
  if (anonymousAccess(config, configured) === 'all') {
    return 'OPEN TO ALL: whoever reaches this address may read, change and delete every file; add a token with "filetracker-server token add", or listen on 127.0.0.1';
  }
  if (config.tls !== undefined) return undefined;
  return 'tokens and files pass in the clear: use --tls-cert and --tls-key, or a proxy that speaks TLS';
}

/**
 * Everything that stands between a server and those who reach it: who may do what, and how much. The
 * process that serves opens one, gives its parts to the server, and closes it.
 */
export class Guard {
  readonly #options: GuardOptions;
  readonly #tokens: TokenSource;
  readonly #tls: TlsMaterial | undefined;
  readonly #disks: StoreDisks;
  readonly #freeSpaceMinBytes: number;
  readonly #clock: Clock;

  private constructor(
    options: GuardOptions,
    parts: {
      tokens: TokenSource;
      tls: TlsMaterial | undefined;
      disks: StoreDisks;
      freeSpaceMinBytes: number;
    },
  ) {
    this.#options = options;
    this.#tokens = parts.tokens;
    this.#tls = parts.tls;
    this.#disks = parts.disks;
    this.#freeSpaceMinBytes = parts.freeSpaceMinBytes;
    this.#clock = options.clock ?? systemClock;
  }

  /** @throws FiletrackerError `invalid-argument`, `corrupt-store`, `io` where tokens, keys or certificates can't be used. */
  static async open(options: GuardOptions): Promise<Guard> {
    const { config, folder, engines, logger } = options;
    const tls = config.tls === undefined ? undefined : await readTlsMaterial(config.tls);
    const disks = await StoreDisks.open(folder);
    const floorBytes = config.freeSpaceMinBytes ?? (await disks.defaultFreeBytesMin());
    const tokens = await openTokens({ folder, engines }, (error) =>
      logger.error({ err: error }, 'Cannot read the tokens'),
    );
    return new Guard(options, { tokens, tls, disks, freeSpaceMinBytes: floorBytes });
  }

  /** What nobody needs a token for, as it is now. */
  get anonymous(): AnonymousAccess {
    return anonymousAccess(this.#options.config, this.#tokens.configured);
  }

  /** The bounds, those of all workers together. */
  get limits(): ServerLimits {
    const { fileSizeMaxBytes, storedBytesMax, filesMax, uploadsMax, connectionsMax } = this.#options.config;
    const freeSpaceMinBytes = this.#options.storesElsewhere === true ? undefined : this.#freeSpaceMinBytes;
    return { fileSizeMaxBytes, storedBytesMax, filesMax, uploadsMax, connectionsMax, freeSpaceMinBytes };
  }

  /** The parts of a server's options that this decides. */
  get serverOptions(): Pick<
    HttpServerOptions,
    'access' | 'admission' | 'tls' | 'timeouts' | 'bodyBytesPerSecondMin' | 'connectionsMax'
  > {
    const { config } = this.#options;
    return {
      access: new TokenAccess({
        tokens: () => this.#tokens.book,
        anonymous: () => this.anonymous,
        clock: this.#clock,
      }),
      admission: this.#admission(),
      tls: this.#tls,
      timeouts: {
        headersMs: config.headersTimeoutMs,
        idleMs: config.idleTimeoutMs,
        stallMs: config.stallTimeoutMs,
      },
      bodyBytesPerSecondMin: config.bodyBytesPerSecondMin,
      connectionsMax: this.#partOf(config.connectionsMax),
    };
  }

  /** This worker's part of a number; the parts make that number, but none is less than 1. */
  #partOf(total: number): number {
    const { workers, worker = 0 } = this.#options;
    return Math.max(1, Math.floor(total / workers) + (worker < total % workers ? 1 : 0));
  }

  #admission(): RateLimiter | undefined {
    const { config, workers, rates } = this.#options;
    if (config.requestsPerSecond === undefined) return undefined;
    const requestsPerSecond =
      rates === undefined ? config.requestsPerSecond / workers : config.requestsPerSecond;
    return new RateLimiter({ requestsPerSecond, table: rates, clock: this.#clock });
  }

  /** The store with its bounds on uploads. */
  limit(store: FileStore): LimitedFileStore {
    const { config, storesElsewhere = false } = this.#options;
    const { tokenUploadsMax } = config;
    return new LimitedFileStore(store, {
      limits: {
        uploadsMax: this.#partOf(config.uploadsMax),
        senderUploadsMax: tokenUploadsMax === undefined ? undefined : this.#partOf(tokenUploadsMax),
        listsMax: this.#partOf(listsMax),
        freeSpaceMinBytes: this.#freeSpaceMinBytes,
      },
      freeSpace: async () => (storesElsewhere ? undefined : this.#disks.freeBytes()),
      clock: this.#clock,
    });
  }

  /** Takes keys, certificates and tokens as they are now; keeps the old ones where they can't be read. */
  async reload(server: HttpServer): Promise<void> {
    const { config, logger } = this.#options;
    await this.#tokens.reload();
    if (config.tls === undefined) return;
    try {
      server.replaceTls(await readTlsMaterial(config.tls));
      logger.info('certificates read anew');
    } catch (error) {
      logger.error({ err: error }, 'Cannot take the new certificates: the old ones stay in use');
    }
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await this.#tokens.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
