import { join, resolve } from 'node:path';
import { cannot, messageOf } from '../core/errors.ts';
import { parseDurationMs, parseSizeBytes } from '../core/quantities.ts';
import { homeFolder } from '../fs/folders.ts';
import { isCount } from './arguments.ts';
import type { LocalCache, LocalCacheOptions } from './cache/local-cache.ts';
import { handOuts, type HandOut } from './cache/materialize.ts';
import { readTlsFiles } from './http/certificate-files.ts';
import type { RemoteStore } from './http/remote-store.ts';
import type { RetryPolicy } from './http/retries.ts';
import { checkTransportOptions, type HttpTransportOptions } from './http/transport-options.ts';

/**
 * How a client is set up.
 *
 * @example
 * ```ts
 * import { Client } from 'filetracker';
 * import type { ClientOptions } from 'filetracker';
 *
 * const { FILETRACKER_URL: remoteUrl } = process.env;
 * const options: ClientOptions = { remoteUrl, cacheDir: 'cache', cacheSize: '10G', onWarning: console.warn };
 * const client = new Client(options);
 * console.log(await client.exists('/examples/none'));
 * await client.close();
 * ```
 */
export interface ClientOptions extends HttpTransportOptions {
  /** URL of the server, as `http://user:secret@host:9999/prefix`; without it the cache is a store of its own. */
  readonly remoteUrl?: string | undefined;
  /** Folder of the cache; without it nothing is cached. */
  readonly cacheDir?: string | undefined;
  /** Maximum size of the cache, in bytes or as text such as `10G` or `10GiB`; no limit unless given. */
  readonly cacheSize?: number | string | undefined;
  /** Space to leave free on the disk of the cache, in bytes or as text; 1 GiB unless given, or a twentieth of a smaller disk. */
  readonly cacheMinFree?: number | string | undefined;
  /** Permissions of the cache's folders, such as 0o2770 to share it with a group; what the umask leaves unless given. */
  readonly cacheMode?: number | undefined;
  /** How a cached blob is materialized at the target path; `auto` unless given. */
  readonly handOut?: HandOut | undefined;
  /** Serve from the cache only. */
  readonly offline?: boolean | undefined;
  /** Check the digest of every cached blob before it is used. */
  readonly verify?: boolean | undefined;
  /** Called with problems that do not make a call fail, such as a cache that cannot be written to. */
  readonly onWarning?: ((message: string) => void) | undefined;
  /** A store to use in place of the one that `remoteUrl` names. */
  readonly remoteStore?: RemoteStore | undefined;
  /** A cache to use in place of the one that `cacheDir` names. */
  readonly localStore?: LocalCache | undefined;
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The default folder of the cache, `~/.filetracker-store`, which the Python client uses too.
 * @returns An absolute path.
 * @throws FiletrackerError `invalid-argument` if the user has no home folder.
 *
 * @example
 * ```ts
 * import { Client, defaultCacheDir } from 'filetracker';
 *
 * const { FILETRACKER_URL: remoteUrl } = process.env;
 * const client = new Client({ remoteUrl, cacheDir: defaultCacheDir(), cacheSize: '1G' });
 * await client.close();
 * ```
 */
export function defaultCacheDir(): string {
  const home = homeFolder();
  if (home !== undefined) return join(home, '.filetracker-store');
  const state = 'HOME is not set and the password file has no entry for this user';
  const advice = 'name a folder with --cache-dir or FILETRACKER_DIR';
  throw cannot('invalid-argument', 'choose a cache folder', `${state}; ${advice}`);
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

/**
 * Reads the options that the environment sets: FILETRACKER_URL, FILETRACKER_DIR (the cache), FILETRACKER_CACHE_SIZE,
 * FILETRACKER_CACHE_MIN_FREE, FILETRACKER_CACHE_MODE, FILETRACKER_HAND_OUT, FILETRACKER_RETRY_FOR (how long a server that
 * is away is retried), and for https the files FILETRACKER_TLS_CA, FILETRACKER_TLS_CERT and FILETRACKER_TLS_KEY. An empty
 * variable counts as unset. Without FILETRACKER_DIR the cache is in the home folder; a user without one has no `cacheDir`.
 * @throws FiletrackerError `invalid-argument` for a value of the wrong form; `io` for an unreadable file.
 *
 * @example
 * ```ts
 * import { Client, optionsFromEnvironment } from 'filetracker';
 *
 * const client = new Client({ ...optionsFromEnvironment(), cacheSize: '1G' });
 * await client.close();
 * ```
 */
export function optionsFromEnvironment(environment: Environment = process.env): ClientOptions {
  const set = (name: string): string | undefined => environment[name] || undefined;
  const [mode, handOut] = [set('FILETRACKER_CACHE_MODE'), set('FILETRACKER_HAND_OUT')];
  return {
    remoteUrl: set('FILETRACKER_URL'),
    cacheDir: set('FILETRACKER_DIR') ?? (homeFolder() === undefined ? undefined : defaultCacheDir()),
    cacheSize: set('FILETRACKER_CACHE_SIZE'),
    cacheMinFree: set('FILETRACKER_CACHE_MIN_FREE'),
    cacheMode: mode === undefined ? undefined : parseMode(mode),
    handOut: handOut === undefined ? undefined : parseHandOut(handOut),
    retries: parseRetryFor(environment['FILETRACKER_RETRY_FOR']),
    tls: readTlsFiles({
      ca: set('FILETRACKER_TLS_CA'),
      cert: set('FILETRACKER_TLS_CERT'),
      key: set('FILETRACKER_TLS_KEY'),
    }),
  };
}

/** Reads permissions in octal, as `2770`. @throws FiletrackerError `invalid-argument`. */
function parseMode(text: string): number {
  if (/^0?[0-7]{3,4}$/.test(text)) return Number.parseInt(text, 8);
  throw cannot('invalid-argument', `read "${text}" as permissions`, 'write octal, as "2770"');
}

/** How long a server that is away is retried, as `20s`. @throws FiletrackerError `invalid-argument`. */
export function parseRetryFor(text: string | undefined): Partial<RetryPolicy> | undefined {
  if (!text) return undefined;
  const retryForMs = parseDurationMs(text);
  return { retryForMs, retryUnknownForMs: retryForMs, ...(retryForMs === 0 && { timeoutRetriesMax: 0 }) };
}

/** @throws FiletrackerError `invalid-argument`. */
export function parseHandOut(text: string): HandOut {
  const found = handOuts.find((word) => word === text);
  if (found !== undefined) return found;
  throw cannot('invalid-argument', `use "${text}" as a link mode`, `choose one of ${handOuts.join(', ')}`);
}

/** @throws FiletrackerError `invalid-argument` for unusable options. */
export function checkOptions(options: ClientOptions): void {
  if (typeof options !== 'object' || (options as unknown) === null) {
    throw cannot('invalid-argument', 'open a client', 'its options must be an object');
  }
  const require = (
    name: string,
    value: string | number | undefined,
    isGood: boolean,
    state: string,
  ): void => {
    if (value === undefined || isGood) return;
    throw cannot('invalid-argument', `use "${value}" as ${name}`, state);
  };
  const { cacheDir, cacheSize, cacheMinFree, cacheMode, handOut } = options;
  require('cacheDir', cacheDir, cacheDir !== '', 'it must be the path of a folder');
  for (const [name, value] of Object.entries({ cacheSize, cacheMinFree })) {
    const isGood = typeof value === 'string' || isCount(value, 0);
    require(name, value, isGood, 'it must be a whole number of bytes, from 0 on');
  }
  checkTransportOptions(options);
  const isMode = isCount(cacheMode, 0) && (cacheMode ?? 0) <= 0o7777;
  require('cacheMode', cacheMode, isMode, 'it must be permissions, as 0o2770');
  if (handOut !== undefined) parseHandOut(handOut);
}

/** The options of the cache; `undefined` if there is none. */
export function cacheOptionsOf(options: ClientOptions): LocalCacheOptions | undefined {
  const { cacheDir, cacheSize, cacheMinFree, cacheMode, handOut } = options;
  if (cacheDir === undefined) return undefined;
  const bytesOf = (value: number | string | undefined): number | undefined =>
    typeof value === 'string' ? parseSizeBytes(value) : value;
  return {
    folder: resolve(cacheDir),
    sizeMaxBytes: bytesOf(cacheSize),
    freeMinBytes: bytesOf(cacheMinFree),
    folderMode: cacheMode,
    handOut,
  };
}
