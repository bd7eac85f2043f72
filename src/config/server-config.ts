import { availableParallelism } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';
import { FiletrackerError } from '../core/errors.ts';
import { withoutTrailingSlashes } from '../core/file-name.ts';
import { shownAddress } from '../core/shown-text.ts';
import { homeFolder } from '../fs/folders.ts';
import { givenFlag, nonEmpty, readDurationFlag, readSizeFlag, refuseFlag } from './flag-values.ts';
import { readListenAddress } from './listen-address.ts';
import { readEngineConfig, type EngineConfig, type EngineFlags } from './engine-config.ts';
import { capacityOf, readGuardConfig, type GuardConfig, type GuardFlags } from './guard-config.ts';

const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

/** Everything that a server is told, checked; what follows from it is decided elsewhere. */
export interface ServerConfig {
  /** Absolute path of the store. */
  readonly folder: string;
  /** Where catalog and blobs are, if not there. */
  readonly engines: EngineConfig;
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
  /** As `/ft`; empty where there is none. */
  readonly basePath: string;
  /** Without a slash at the end. */
  readonly fallbackUrl: string | undefined;
  /** Whether readers are sent there, or files are fetched from there and kept. */
  readonly fallbackMode: 'redirect' | 'import';
  readonly workers: number;
  /** How long to serve on, with `/readyz` 503, before stopping. */
  readonly drainDelayMs: number;
  /** How long content stays that no name refers to any more. */
  readonly collectionGraceMs: number;
  /** How often everything is read and checked; undefined for on request only. */
  readonly verifyIntervalMs: number | undefined;
  /** Bytes that verification reads in a second, at the most. */
  readonly verifyBytesPerSecond: number;
  readonly logLevel: LogLevel;
  /** Absolute path; undefined for the standard output. */
  readonly logFile: string | undefined;
  /** Access, TLS and limits. */
  readonly guard: GuardConfig;
}

/** Flags as they come from the command line, by the long name of each. */
export interface ServerFlags extends GuardFlags, EngineFlags {
  readonly dir?: string | undefined;
  readonly listenOn?: string | undefined;
  readonly port?: string | undefined;
  readonly basePath?: string | undefined;
  readonly fallbackUrl?: string | undefined;
  readonly fallbackMode?: string | undefined;
  readonly workers?: string | undefined;
  readonly drainDelay?: string | undefined;
  readonly gcGrace?: string | undefined;
  readonly verifyInterval?: string | undefined;
  readonly verifyRate?: string | undefined;
  readonly log?: string | undefined;
  readonly logLevel?: string | undefined;
}

export type Environment = Readonly<Record<string, string | undefined>>;

const defaultPort = 9999;
const defaultHost = '127.0.0.1';
const defaultGrace = '1h';
const defaultVerifyRate = '32M';
const verifyIntervalMinMs = 60_000;
const drainDelayMaxMs = 3_600_000;
const workersMax = 256;

function readWhole(flag: string, value: string, least: number, most: number): number {
  const number = /^\d{1,9}$/.test(value) ? Number(value) : -1;
  if (number >= least && number <= most) return number;
  return refuseFlag(flag, value, `it must be a whole number from ${least} to ${most}`);
}

/** The words that Python's logging knows are taken for ours. */
const legacyLevels: Readonly<Record<string, LogLevel>> = {
  warning: 'warn',
  critical: 'fatal',
  notset: 'trace',
};

/** @throws FiletrackerError `invalid-argument`. */
function readLogLevel(text: string): LogLevel {
  const word = text.toLowerCase();
  const level = logLevels.find((known) => known === word) ?? legacyLevels[word];
  return level ?? refuseFlag('--log-level', text, `the levels are ${logLevels.join(', ')}`);
}

function readBasePath(text: string): string {
  const path = withoutTrailingSlashes(text);
  if (path === '') return '';
  if (/^(?:\/[\w.~-]+)+$/.test(path) && !/\/\.{1,2}(?:\/|$)/.test(path)) return path;
  return refuseFlag(
    '--base-path',
    text,
    'it must be a path such as /ft, of letters, digits, ".", "_", "~" and "-"',
  );
}

function readFallbackUrl(text: string): string {
  if (!URL.canParse(text)) refuseFlag('--fallback-url', shownAddress(text), 'it is no URL');
  const url = new URL(text);
  const plain = url.search === '' && url.hash === '' && url.username === '' && url.password === '';
  if ((url.protocol !== 'http:' && url.protocol !== 'https:') || !plain) {
    refuseFlag(
      '--fallback-url',
      shownAddress(text),
      'it must be the http or https base URL of a server, without a user or a query',
    );
  }
  return withoutTrailingSlashes(url.href);
}

function readFallbackMode(text: string, hasUrl: boolean): 'redirect' | 'import' {
  if (text === 'import' && !hasUrl)
    refuseFlag('--fallback-mode', text, 'it needs --fallback-url, the server to import from');
  if (text === 'redirect' || text === 'import') return text;
  return refuseFlag('--fallback-mode', text, 'it must be redirect or import');
}

function readInterval(text: string): number | undefined {
  const intervalMs = readDurationFlag('--verify-interval', text);
  if (intervalMs === 0) return undefined;
  if (intervalMs >= verifyIntervalMinMs) return intervalMs;
  return refuseFlag('--verify-interval', text, 'it must be a minute or more, or 0 for never');
}

function readDrainDelay(text: string): number {
  const delayMs = readDurationFlag('--drain-delay', text);
  return delayMs <= drainDelayMaxMs ? delayMs : refuseFlag('--drain-delay', text, 'it must be 1h or less');
}

function readVerifyRate(text: string): number {
  const bytes = readSizeFlag('--verify-rate', text);
  return bytes > 0 ? bytes : refuseFlag('--verify-rate', text, 'it must be more than nothing');
}

function defaultFolder(environment: Environment): string {
  const data = environment['XDG_DATA_HOME'];
  // The XDG base directory specification: a relative path is ignored.
  if (data !== undefined && isAbsolute(data)) return join(data, 'filetracker');
  const home = homeFolder();
  if (home !== undefined && isAbsolute(home)) return join(home, '.local', 'share', 'filetracker');
  throw new FiletrackerError(
    'invalid-argument',
    'Cannot choose a folder for the store: this user has no home folder; name a folder with -d',
  );
}

/** Bounds on what is stored are kept where the embedded catalog makes all changes; a database has no such place. */
function checkCapacity(engines: EngineConfig, guard: GuardConfig): void {
  if (engines.catalog === undefined || capacityOf(guard) === undefined) return;
  const { storedBytesMax, filesMax } = guard;
  const quotaFlag = filesMax === undefined ? '--quota' : '--files-max';
  const flag = storedBytesMax === undefined ? quotaFlag : '--store-size-max';
  const state =
    'only the catalog in the folder keeps such a bound; bound the database and the bucket themselves';
  throw new FiletrackerError('invalid-argument', `Cannot use ${flag} with --catalog: ${state}`);
}

/**
 * Makes one checked object of flags and environment; flags win.
 * @throws FiletrackerError `invalid-argument`, with the flag and what it may be.
 */
export function readServerConfig(flags: ServerFlags, environment: Environment): ServerConfig {
  const folder =
    givenFlag('--dir', flags.dir) ?? nonEmpty(environment['FILETRACKER_DIR']) ?? defaultFolder(environment);
  const { port, workers, basePath, logLevel } = flags;
  const log = givenFlag('--log', flags.log);
  const fallbackUrl = nonEmpty(flags.fallbackUrl);
  const engines = readEngineConfig(flags, environment);
  const guard = readGuardConfig(flags);
  checkCapacity(engines, guard);
  return {
    folder: resolve(folder),
    engines,
    host: readListenAddress(givenFlag('--listen-on', flags.listenOn) ?? defaultHost),
    port: port === undefined ? defaultPort : readWhole('--port', port, 0, 65_535),
    basePath: basePath === undefined ? '' : readBasePath(basePath),
    fallbackUrl: fallbackUrl === undefined ? undefined : readFallbackUrl(fallbackUrl),
    fallbackMode: readFallbackMode(flags.fallbackMode ?? 'redirect', fallbackUrl !== undefined),
    workers: workers === undefined ? availableParallelism() : readWhole('--workers', workers, 1, workersMax),
    drainDelayMs: readDrainDelay(flags.drainDelay ?? '0'),
    collectionGraceMs: readDurationFlag('--gc-grace', flags.gcGrace ?? defaultGrace),
    verifyIntervalMs: flags.verifyInterval === undefined ? undefined : readInterval(flags.verifyInterval),
    verifyBytesPerSecond: readVerifyRate(flags.verifyRate ?? defaultVerifyRate),
    logLevel: logLevel === undefined ? 'info' : readLogLevel(logLevel),
    logFile: log === undefined ? undefined : resolve(log),
    guard,
  };
}
