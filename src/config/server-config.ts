import { availableParallelism } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { cannot } from '../core/errors.ts';
import { withoutTrailingSlashes } from '../core/file-name.ts';
import * as limits from '../core/limits.ts';
import { shownAddress } from '../core/shown-text.ts';
import { homeFolder } from '../fs/folders.ts';
import {
  connectionsSection,
  backEndsSection,
  readBackEndConfig,
  type BackEndConfig,
  type BackEndFlags,
} from './back-end-config.ts';
import {
  accessSection,
  capacityOf,
  limitsSection,
  readGuardConfig,
  type GuardConfig,
  type GuardFlags,
} from './guard-config.ts';
import { readListenAddress } from './listen-address.ts';
import {
  choice,
  count,
  duration,
  flag,
  option,
  parsed,
  path,
  readSettings,
  refuseFlag,
  section,
  size,
  text,
  type Environment,
  type Flags,
  type Kind,
  type Values,
} from './setting.ts';

const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

/** The levels of Python's logging that have another name here. */
const legacyLevels = new Map<string, LogLevel>([
  ['warning', 'warn'],
  ['critical', 'fatal'],
  ['notset', 'trace'],
]);

const logLevel: Kind<LogLevel> = {
  ...choice(...logLevels),
  read(text, flag) {
    const word = text.toLowerCase();
    const level = logLevels.find((known) => known === word) ?? legacyLevels.get(word);
    return level ?? refuseFlag(flag, text, `the levels are ${logLevels.join(', ')}`);
  },
};

/** The store that a command works on. */
export const folderSetting = option('-d, --dir <folder>', 'folder of the store', path, {
  variable: 'FILETRACKER_DIR',
  initially: 'filetracker in the data folder of the user',
});

export const generalSection = section('General', {
  port: option('-p, --port <port>', 'port to listen on; 0 for any free port', count(0, 65_535), {
    initial: 9999,
  }),
  host: option('-l, --listen-on <address>', 'address to listen on', parsed(readListenAddress), {
    initial: '127.0.0.1',
  }),
  folder: folderSetting,
  basePath: option('--base-path <path>', 'prefix of every URL path, such as /ft', parsed(readBasePath), {
    initial: '',
    initially: 'none',
    mayBeEmpty: true,
  }),
  workers: option('--workers <number>', 'processes that serve requests', count(1, 256), {
    initially: 'the cores less one, at least one',
  }),
  logFile: option('-L, --log <file>', 'append the log to a file', path, {
    initially: 'the standard output',
  }),
  logLevel: option('--log-level <level>', 'trace, debug, info, warn, error, fatal or silent', logLevel, {
    initial: 'info',
  }),
  drainDelayMs: option(
    '--drain-delay <time>',
    'on SIGTERM, keep serving for this time with /readyz 503',
    duration({ most: 3_600_000 }),
    { initial: 0 },
  ),
  fastLane: flag('--no-fast-lane', 'let node:http read every request, small plain ones too'),
});

/** Flags of the process, not of the server in it. */
export const processSection = section('Process', {
  daemon: flag('--daemon', 'run in the background once the server is up; needs -L'),
  foreground: flag('-D, --no-daemon', 'run in the foreground, the default'),
  pidFile: option('--pid-file <file>', 'write the process id to a file', text),
  logConfig: option('--log-config <file>', 'accepted for old scripts; has no effect', text),
});

export const maintenanceSection = section('Maintenance', {
  collectionGraceMs: option(
    '--gc-grace <time>',
    'how long to keep unreferenced blobs before they are garbage-collected',
    duration(),
    { initial: limits.collectionGraceMs },
  ),
  verifyIntervalMs: option(
    '--verify-interval <time>',
    'how often to verify all blobs',
    parsed(readVerifyInterval),
    { initially: 'on request only' },
  ),
  verifyBytesPerSecond: option(
    '--verify-rate <size>',
    'bytes a second that verification reads',
    size({ least: 1 }),
    { initial: limits.verifyBytesPerSecond },
  ),
});

export const fallbackSection = section('Moving from another server', {
  fallbackUrl: option(
    '--fallback-url <url>',
    'redirect readers of missing files to this server (307)',
    parsed(readFallbackUrl),
    { mayBeEmpty: true },
  ),
  fallbackMode: option(
    '--fallback-mode <mode>',
    'redirect, or import: fetch missing files from there and keep them',
    choice('redirect', 'import'),
    { initial: 'redirect' },
  ),
});

/** All settings of the server, in the order of its help. */
export const serverSections = [
  generalSection,
  processSection,
  maintenanceSection,
  accessSection,
  limitsSection,
  fallbackSection,
  backEndsSection,
  connectionsSection,
] as const;

/** The checked settings of a server. */
export interface ServerConfig
  extends
    Omit<Values<typeof generalSection>, 'folder' | 'workers' | 'fastLane'>,
    Values<typeof maintenanceSection>,
    Values<typeof fallbackSection> {
  /** Absolute path of the store. */
  readonly folder: string;
  readonly workers: number;
  /** Whether small, plain requests are served without node:http. */
  readonly fastLane: boolean;
  readonly backEnds: BackEndConfig;
  readonly guard: GuardConfig;
}

export type ServerFlags = Flags<typeof generalSection> &
  Flags<typeof maintenanceSection> &
  Flags<typeof fallbackSection> &
  GuardFlags &
  BackEndFlags;

/**
 * Reads and checks the settings of a server; flags win over the environment.
 * @throws FiletrackerError `invalid-argument`, which names the flag and its possible values.
 */
export function readServerConfig(flags: ServerFlags, environment: Environment): ServerConfig {
  const general = readSettings(generalSection, flags, environment);
  const fallback = readSettings(fallbackSection, flags);
  if (fallback.fallbackMode === 'import' && fallback.fallbackUrl === undefined) {
    refuseFlag('--fallback-mode', 'import', 'it needs --fallback-url, the server to import from');
  }
  const backEnds = readBackEndConfig(flags, environment);
  const guard = readGuardConfig(flags);
  checkCapacity(backEnds, guard);
  return {
    ...general,
    ...readSettings(maintenanceSection, flags),
    ...fallback,
    folder: general.folder ?? defaultFolder(environment),
    workers: general.workers ?? workersFor(availableParallelism()),
    fastLane: general.fastLane ?? true,
    backEnds,
    guard,
  };
}

/**
 * One worker less than there are cores, at least one. The threads of the workers (compression, files, syncs) and the kernel take
 * the other core; measured, two workers on two cores serve hardly more reads than one, and fewer writes, because every
 * change of a follower takes two more hops. Figures: docs/OPERATIONS.md.
 */
export function workersFor(cores: number): number {
  return Math.max(1, cores - 1);
}

function readBasePath(text: string, flag: string): string {
  const path = withoutTrailingSlashes(text);
  if (path === '') return '';
  if (/^(?:\/[\w.~-]+)+$/.test(path) && !/\/\.{1,2}(?:\/|$)/.test(path)) return path;
  return refuseFlag(flag, text, 'it must be a path such as /ft, of letters, digits, ".", "_", "~" and "-"');
}

function readFallbackUrl(text: string, flag: string): string {
  const shown = shownAddress(text);
  if (!URL.canParse(text)) refuseFlag(flag, shown, 'it is not a URL');
  const url = new URL(text);
  const plain = url.search === '' && url.hash === '' && url.username === '' && url.password === '';
  if ((url.protocol !== 'http:' && url.protocol !== 'https:') || !plain) {
    const state = 'it must be the http or https base URL of a server, without a user or a query';
    refuseFlag(flag, shown, state);
  }
  return withoutTrailingSlashes(url.href);
}

/** 0 is never. */
function readVerifyInterval(text: string, flag: string): number | undefined {
  const intervalMs = duration().read(text, flag);
  if (intervalMs === 0) return undefined;
  return intervalMs >= 60_000
    ? intervalMs
    : refuseFlag(flag, text, 'it must be a minute or more, or 0 for never');
}

function defaultFolder(environment: Environment): string {
  const data = environment['XDG_DATA_HOME'];
  // The XDG base directory specification: a relative path is ignored.
  if (data !== undefined && isAbsolute(data)) return join(data, 'filetracker');
  const home = homeFolder();
  if (home !== undefined && isAbsolute(home)) return join(home, '.local', 'share', 'filetracker');
  const state = 'this user has no home folder; name a folder with -d';
  throw cannot('invalid-argument', 'choose a folder for the store', state);
}

/** Only the embedded catalog keeps limits on what is stored: one process makes all its changes. */
function checkCapacity(backEnds: BackEndConfig, guard: GuardConfig): void {
  if (backEnds.catalog === undefined || capacityOf(guard) === undefined) return;
  const { storedBytesMax, filesMax } = guard;
  const quotaFlag = filesMax === undefined ? '--quota' : '--files-max';
  const flag = storedBytesMax === undefined ? quotaFlag : '--store-size-max';
  const state = 'only a catalog in a folder enforces this limit; set limits in the database and the bucket';
  throw cannot('invalid-argument', `use ${flag} with --catalog`, state);
}
