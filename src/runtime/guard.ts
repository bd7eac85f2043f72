import type { Logger } from 'pino';
import { RateLimiter } from '../access/rate-limiter.ts';
import type { RateTable } from '../access/rate-table.ts';
import { readTlsMaterial, type TlsMaterial } from '../access/tls-files.ts';
import { TokenAccess, type AnonymousAccess } from '../access/token-access.ts';
import type { TokenSource } from '../access/token-source.ts';
import { usesFolder } from '../config/back-end-config.ts';
import type { ServerConfig } from '../config/server-config.ts';
import { systemClock } from '../core/clock.ts';
import { listsMax } from '../core/limits.ts';
import type { HttpServer } from '../server/http-server.ts';
import type { HttpServerOptions } from '../server/options.ts';
import { SenderSlots } from '../store/sender-slots.ts';
import { UploadGate } from '../store/upload-gate.ts';
import type { ServerLimits } from '../telemetry/server-metrics.ts';
import { openTokens } from './open-tokens.ts';
import { StoreDisks } from './store-disks.ts';

export interface GuardOptions {
  /** Which of the workers this is, from 0; the first ones take the remainder of a limit that is divided. */
  readonly worker: number;
  /** The table in which all workers keep the rates of requests; without it these are divided too. */
  readonly rates: RateTable | undefined;
  readonly logger: Logger;
}

/** @param host an address, not a name ("127.example.org" may be anywhere), or the path of a socket on this machine. */
function isLoopback(host: string): boolean {
  return host === '::1' || host.startsWith('127.') || host.startsWith('::ffff:127.') || host.startsWith('/');
}

function anonymousAccess({ guard }: ServerConfig, tokensConfigured: boolean): AnonymousAccess {
  return guard.anonymous ?? (tokensConfigured ? 'none' : 'all');
}

/**
 * Warns of access that the operator may not have intended; `undefined` if there is nothing to warn of.
 * @param hosts the addresses that the server listens on.
 */
export async function exposureOf(
  hosts: readonly string[],
  config: ServerConfig,
): Promise<string | undefined> {
  const tokens = await openTokens(config, () => undefined);
  try {
    return exposureWith(tokens, hosts, config);
  } finally {
    await tokens.close();
  }
}

function exposureWith(
  { book, configured }: TokenSource,
  hosts: readonly string[],
  config: ServerConfig,
): string | undefined {
  const inFolder = config.backEnds.catalog === undefined;
  if (book.unread) {
    const obstacle = inFolder ? 'file can be read' : 'database can be reached';
    return `TOKENS NOT READ: requests receive 503 until the ${obstacle}`;
  }
  if (book.lost) {
    const place = inFolder
      ? 'file "tokens.json" is missing; restore it'
      : 'table "token" is empty; restore it';
    return `TOKENS LOST: this store has had tokens, but its ${place}, or add tokens again`;
  }
  if (hosts.every((host) => isLoopback(host))) return undefined;
  if (anonymousAccess(config, configured) === 'all') {
    return 'OPEN TO ALL: every client that reaches this address may read, change and delete every file; add a token with "filetracker-server token add", or listen on 127.0.0.1';
  }
  if (config.guard.tls !== undefined) return undefined;
  return 'tokens and files are sent unencrypted: use --tls-cert and --tls-key, or a proxy that terminates TLS';
}

/**
 * Everything that protects a server from its clients: rights, rates and limits. A worker opens one, passes its parts
 * to the server, and closes it. Limits on concurrent work are divided among the workers, so that they hold for the store.
 */
export class Guard {
  /** Admits the uploads of this worker. */
  readonly uploads: UploadGate;
  readonly #config: ServerConfig;
  readonly #options: GuardOptions;
  readonly #tokens: TokenSource;
  readonly #tls: TlsMaterial | undefined;
  readonly #freeSpaceMinBytes: number;

  private constructor(
    config: ServerConfig,
    options: GuardOptions,
    parts: {
      tokens: TokenSource;
      tls: TlsMaterial | undefined;
      disks: StoreDisks;
      freeSpaceMinBytes: number;
    },
  ) {
    this.#config = config;
    this.#options = options;
    this.#tokens = parts.tokens;
    this.#tls = parts.tls;
    this.#freeSpaceMinBytes = parts.freeSpaceMinBytes;
    const { guard, backEnds } = config;
    const { tokenUploadsMax, uploadsMax } = guard;
    this.uploads = new UploadGate({
      uploadsMax: this.#partOf(uploadsMax),
      senderUploadsMax: tokenUploadsMax === undefined ? undefined : this.#partOf(tokenUploadsMax),
      freeSpaceMinBytes: parts.freeSpaceMinBytes,
      freeSpace: async () => (usesFolder(backEnds) ? parts.disks.freeBytes() : undefined),
      clock: systemClock,
    });
  }

  /** @throws FiletrackerError `invalid-argument`, `corrupt-store`, `io` if tokens, keys or certificates cannot be used. */
  static async open(config: ServerConfig, options: GuardOptions): Promise<Guard> {
    const { guard, folder } = config;
    const tls = guard.tls === undefined ? undefined : await readTlsMaterial(guard.tls);
    const disks = await StoreDisks.open(folder);
    const freeSpaceMinBytes = guard.freeSpaceMinBytes ?? (await disks.defaultFreeBytesMin());
    const tokens = await openTokens(config, (error) =>
      options.logger.error({ err: error }, 'Cannot read the tokens'),
    );
    return new Guard(config, options, { tokens, tls, disks, freeSpaceMinBytes });
  }

  /** The limits of all workers together. The disk does not matter if everything is stored elsewhere. */
  get limits(): ServerLimits {
    const { fileSizeMaxBytes, storedBytesMax, filesMax, uploadsMax, connectionsMax } = this.#config.guard;
    const freeSpaceMinBytes = usesFolder(this.#config.backEnds) ? this.#freeSpaceMinBytes : undefined;
    return { fileSizeMaxBytes, storedBytesMax, filesMax, uploadsMax, connectionsMax, freeSpaceMinBytes };
  }

  get serverOptions(): Pick<
    HttpServerOptions,
    | 'access'
    | 'admission'
    | 'uploads'
    | 'lists'
    | 'tls'
    | 'timeouts'
    | 'bodyBytesPerSecondMin'
    | 'connectionsMax'
  > {
    const { guard } = this.#config;
    return {
      access: new TokenAccess({
        tokens: () => this.#tokens.book,
        anonymous: () => anonymousAccess(this.#config, this.#tokens.configured),
        clock: systemClock,
      }),
      admission: this.#admission(),
      uploads: this.uploads,
      lists: new SenderSlots({ what: 'lists', max: this.#partOf(listsMax) }),
      tls: this.#tls,
      timeouts: {
        headersMs: guard.headersTimeoutMs,
        idleMs: guard.idleTimeoutMs,
        stallMs: guard.stallTimeoutMs,
      },
      bodyBytesPerSecondMin: guard.bodyBytesPerSecondMin,
      connectionsMax: this.#partOf(guard.connectionsMax),
    };
  }

  /** This worker's part of a number; the parts add up to it, but none is less than 1. */
  #partOf(total: number): number {
    const { workers } = this.#config;
    return Math.max(1, Math.floor(total / workers) + (this.#options.worker < total % workers ? 1 : 0));
  }

  #admission(): RateLimiter | undefined {
    const { guard, workers } = this.#config;
    const { rates } = this.#options;
    if (guard.requestsPerSecond === undefined) return undefined;
    const requestsPerSecond =
      rates === undefined ? guard.requestsPerSecond / workers : guard.requestsPerSecond;
    return new RateLimiter({ requestsPerSecond, table: rates, clock: systemClock });
  }

  /** Reads keys, certificates and tokens again; keeps the current ones if that fails. */
  async reload(server: HttpServer): Promise<void> {
    const { tls } = this.#config.guard;
    const { logger } = this.#options;
    await this.#tokens.reload();
    if (tls === undefined) return;
    try {
      server.replaceTls(await readTlsMaterial(tls));
      logger.info('certificates reloaded');
    } catch (error) {
      logger.error({ err: error }, 'Cannot use the new certificates: the old ones stay in use');
    }
  }

  /** Idempotent. */
  close(): Promise<void> {
    return this.#tokens.close();
  }
}
