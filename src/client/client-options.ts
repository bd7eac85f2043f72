import { join, resolve } from 'node:path';
import { FiletrackerError, messageOf } from '../core/errors.ts';
import { parseDurationMs, parseSizeBytes } from '../core/quantities.ts';
import { homeFolder } from '../fs/folders.ts';
import { isCount, requireCounts } from './arguments.ts';
import { readTlsFiles } from './http/certificate-files.ts';
import { handOuts } from './cache/materialize.ts';
import type { HandOut } from './cache/materialize.ts';
import type { TlsOptions } from './http/certificate-files.ts';
import type { LocalCache, LocalCacheOptions } from './cache/local-cache.ts';
import type { ProxySetting } from './http/proxies.ts';
import type { RemoteStore } from './http/remote-store.ts';
import type { RetryPolicy } from './http/retries.ts';

/** How a client is set up. What is given here wins over the environment. */
export interface ClientOptions {
  /** URL of the server, as `http://user:secret@host:9999/prefix`; without it the cache is a store of its own. */
  readonly remoteUrl?: string | undefined;
  /** Folder of the cache; without it nothing is cached. */
  readonly cacheDir?: string | undefined;
  /** Bytes that the cache may take, or text such as `10G` or `10GiB`; no limit unless given. */
  readonly cacheSize?: number | string | undefined;
  /** Bytes that must stay free on the disk of the cache, or text; 1 GiB unless given, or a twentieth of a smaller disk. */
  readonly cacheMinFree?: number | string | undefined;
  /** Permissions of the cache's folders, such as 0o2770 to share it with a group; what the umask leaves unless given. */
  readonly cacheMode?: number | undefined;
  /** How cached content gets to its target; `auto` unless given. */
  readonly handOut?: HandOut | undefined;
  /** Serve from the cache alone. */
  readonly offline?: boolean | undefined;
  /** Compute the digest of whatever the cache serves. */
  readonly verify?: boolean | undefined;
  /** Connections to the server; 16 unless given. */
  readonly connections?: number | undefined;
  readonly connectTimeoutMs?: number | undefined;
  /** How long the server may stand still while bytes are due; 30 s unless given. A whole transfer may take any time. */
  readonly stallTimeoutMs?: number | undefined;
  /** What is safe to repeat is tried 4 times more unless given, within 1.5 s, and no server is waited for any longer. */
  readonly retries?: Partial<RetryPolicy> | undefined;
  /**
   * URL of an HTTP proxy to reach the server through, or `false` for none. Unless given, HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and
   * NO_PROXY are heeded, except for servers on this machine.
   */
  readonly proxy?: ProxySetting;
  /** Certificates for https, as PEM text. */
  readonly tls?: TlsOptions | undefined;
  /** Told of what went wrong without making a call fail, such as a cache that can't be written to. */
  readonly onWarning?: ((message: string) => void) | undefined;
  /** Stores made by hand, in place of those that `remoteUrl` and `cacheDir` name. */
  readonly remoteStore?: RemoteStore | undefined;
  readonly localStore?: LocalCache | undefined;
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The folder of the cache if nothing names another; the Python client uses the same.
 * @throws FiletrackerError `invalid-argument` if the user has no home folder.
 */
export function defaultCacheDir(): string {
  const home = homeFolder();
  if (home !== undefined) return join(home, '.filetracker-store');
  const state = 'HOME is not set and the password file has no entry for this user';
  const advice = 'name a folder with --cache-dir or FILETRACKER_DIR';
  throw new FiletrackerError('invalid-argument', `Cannot choose a cache folder: ${state}; ${advice}`);
}

/**
 * Reports why there is no default cache.
 * @throws FiletrackerError `invalid-argument` if there is no server to work with either.
 */
export function reportNoCache({ remoteUrl, remoteStore, onWarning }: ClientOptions): void {
  try {
    defaultCacheDir();
  } catch (error) {
    if (remoteUrl === undefined && remoteStore === undefined) throw error;
    onWarning?.(`${messageOf(error)}; continuing without a cache`);
  }
}

function given(value: string | undefined): string | undefined {
  return value === undefined || value === '' ? undefined : value;
}

/**
 * The settings that the environment names: FILETRACKER_URL, FILETRACKER_DIR (the cache),
 * FILETRACKER_CACHE_SIZE, FILETRACKER_CACHE_MIN_FREE, FILETRACKER_CACHE_MODE and FILETRACKER_HAND_OUT;
 * FILETRACKER_RETRY_FOR (how long a server that is away is waited for); for https the files FILETRACKER_TLS_CA, FILETRACKER_TLS_CERT and FILETRACKER_TLS_KEY.
 * Without FILETRACKER_DIR the cache is in the home folder; for a user without one there is no `cacheDir`.
 * @throws FiletrackerError `invalid-argument`, `io`.
 */
export function optionsFromEnvironment(environment: Environment = process.env): ClientOptions {
  const {
    FILETRACKER_URL: url,
    FILETRACKER_DIR: folder,
    FILETRACKER_CACHE_SIZE: size,
    FILETRACKER_CACHE_MIN_FREE: minFree,
    FILETRACKER_CACHE_MODE: mode,
    FILETRACKER_HAND_OUT: handOut,
    FILETRACKER_RETRY_FOR: retryFor,
    FILETRACKER_TLS_CA: ca,
    FILETRACKER_TLS_CERT: cert,
    FILETRACKER_TLS_KEY: key,
  } = environment;
  const tls = readTlsFiles({ ca, cert, key });
  return {
    remoteUrl: given(url),
    cacheDir: given(folder) ?? (homeFolder() === undefined ? undefined : defaultCacheDir()),
    cacheSize: given(size),
    cacheMinFree: given(minFree),
    cacheMode: given(mode) === undefined ? undefined : parseMode(mode ?? ''),
    handOut: given(handOut) === undefined ? undefined : parseHandOut(handOut ?? ''),
    retries: parseRetryFor(retryFor),
    tls,
  };
}

/** Reads permissions in octal, as `2770`. @throws FiletrackerError `invalid-argument`. */
function parseMode(text: string): number {
  if (/^0?[0-7]{3,4}$/.test(text)) return Number.parseInt(text, 8);
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot read "${text}" as permissions: write octal, as "2770"`,
  );
}

/** How long a server that is away is waited for, as `20s`. @throws FiletrackerError `invalid-argument`. */
export function parseRetryFor(text: string | undefined): Partial<RetryPolicy> | undefined {
  const wanted = given(text);
  if (wanted === undefined) return undefined;
  const retryForMs = parseDurationMs(wanted);
  return { retryForMs, retryUnknownForMs: retryForMs, ...(retryForMs === 0 && { timeoutRetriesMax: 0 }) };
}

/** @throws FiletrackerError `invalid-argument`. */
export function parseHandOut(text: string): HandOut {
  const found = handOuts.find((word) => word === text);
  if (found !== undefined) return found;
  const words = handOuts.join(', ');
  throw new FiletrackerError('invalid-argument', `Cannot hand out by "${text}": the ways are ${words}`);
}

function bytesOf(value: number | string | undefined): number | undefined {
  return typeof value === 'string' ? parseSizeBytes(value) : value;
}

/** @throws FiletrackerError `invalid-argument` for options that mean nothing. */
export function checkOptions(options: ClientOptions): void {
  const given: unknown = options;
  if (typeof given !== 'object' || given === null) {
    throw new FiletrackerError('invalid-argument', 'Cannot open a client: its options must be an object');
  }
  const require = (
    name: string,
    value: string | number | undefined,
    isGood: boolean,
    state: string,
  ): void => {
    if (value === undefined || isGood) return;
    throw new FiletrackerError('invalid-argument', `Cannot use "${value}" as ${name}: ${state}`);
  };
  const { cacheDir, cacheSize, cacheMinFree, cacheMode, connections, connectTimeoutMs, stallTimeoutMs } =
    options;
  require('cacheDir', cacheDir, cacheDir !== '', 'it must be the path of a folder');
  for (const [name, value] of Object.entries({ cacheSize, cacheMinFree })) {
    const isGood = typeof value === 'string' || isCount(value, 0);
    require(name, value, isGood, 'it must be a whole number of bytes, from 0 on');
  }
  requireCounts({ connections, connectTimeoutMs, stallTimeoutMs }, 1);
  requireCounts({ ...options.retries }, 0);
  const isMode = isCount(cacheMode, 0) && (cacheMode ?? 0) <= 0o7777;
  require('cacheMode', cacheMode, isMode, 'it must be permissions, as 0o2770');
  if (options.handOut !== undefined) parseHandOut(options.handOut);
}

/** What the cache needs of the options; undefined where there is no cache. */
export function cacheOptionsOf(options: ClientOptions): LocalCacheOptions | undefined {
  if (options.cacheDir === undefined) return undefined;
  return {
    folder: resolve(options.cacheDir),
    sizeMaxBytes: bytesOf(options.cacheSize),
    freeMinBytes: bytesOf(options.cacheMinFree),
    folderMode: options.cacheMode,
    handOut: options.handOut,
  };
}
