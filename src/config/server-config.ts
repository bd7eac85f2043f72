import { availableParallelism } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { cannot } from '../core/errors.ts';
import { withoutTrailingSlashes } from '../core/file-name.ts';
import * as limits from '../core/limits.ts';
import { shownAddress } from '../core/shown-text.ts';
import { homeFolder } from '../fs/folders.ts';
import {
  engineTuningSection,
  enginesSection,
  readEngineConfig,
  type EngineConfig,
  type EngineFlags,
} from './engine-config.ts';
import {
  accessSection,
  capacityOf,
  limitsSection,
  readGuardConfig,
  type GuardConfig,
  type GuardFlags,
} from './guard-config.ts';
import { readListenAddress } from './listen-address.ts';
import * as setting from './setting.ts';
import { readSettings, refuseFlag, type Environment, type Flags, type Kind, type Values } from './setting.ts';

const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

/** The levels of Python's logging that have another name here. */
const legacyLevels = new Map<string, LogLevel>([
  ['warning', 'warn'],
  ['critical', 'fatal'],
  ['notset', 'trace'],
]);

const logLevel: Kind<LogLevel> = {
  ...setting.choice(...logLevels),
  read(text, flag) {
    const word = text.toLowerCase();
    const level = logLevels.find((known) => known === word) ?? legacyLevels.get(word);
    return level ?? refuseFlag(flag, text, `the levels are ${logLevels.join(', ')}`);
  },
};

/** The store that a command works on. */
export const folderSetting = {
  flags: '-d, --dir <folder>',
  variable: 'FILETRACKER_DIR',
  kind: setting.path,
  initially: 'filetracker in the data folder of the user',
  help: 'folder of the store',
} as const;

export const generalSection = setting.section('General', {
  port: {
    flags: '-p, --port <port>',
    kind: setting.count(0, 65_535),
    initial: 9999,
    help: 'port to listen on; 0 for any free port',
  },
  host: {
    flags: '-l, --listen-on <address>',
    kind: setting.parsed(readListenAddress),
    initial: '127.0.0.1',
    help: 'address to listen on',
  },
  folder: folderSetting,
  basePath: {
    flags: '--base-path <path>',
    kind: setting.parsed(readBasePath),
    initial: '',
    initially: 'none',
    mayBeEmpty: true,
    help: 'prefix of every URL path, such as /ft',
  },
  workers: {
    flags: '--workers <number>',
    kind: setting.count(1, 256),
    initially: 'one for each core',
    help: 'processes that serve requests',
  },
  logFile: {
    flags: '-L, --log <file>',
    kind: setting.path,
    initially: 'the standard output',
    help: 'append the log to a file',
  },
  logLevel: {
    flags: '--log-level <level>',
    kind: logLevel,
    initial: 'info',
    help: 'trace, debug, info, warn, error, fatal or silent',
  },
  drainDelayMs: {
    flags: '--drain-delay <time>',
    kind: setting.duration({ most: 3_600_000 }),
    initial: 0,
    help: 'on SIGTERM, keep serving for this time with /readyz 503',
  },
});

/** Flags of the process, not of the server in it. */
export const processSection = setting.section('Process', {
  daemon: {
    flags: '--daemon',
    kind: setting.toggle,
    help: 'run in the background once the server is up; needs -L',
  },
  foreground: { flags: '-D, --no-daemon', kind: setting.toggle, help: 'run in the foreground, the default' },
  pidFile: { flags: '--pid-file <file>', kind: setting.text, help: 'write the process id to a file' },
  logConfig: {
    flags: '--log-config <file>',
    kind: setting.text,
    help: 'accepted for old scripts; has no effect',
  },
});

export const maintenanceSection = setting.section('Maintenance', {
  collectionGraceMs: {
    flags: '--gc-grace <time>',
    kind: setting.duration(),
    initial: limits.collectionGraceMs,
    help: 'how long to keep unreferenced blobs before they are garbage-collected',
  },
  verifyIntervalMs: {
    flags: '--verify-interval <time>',
    kind: setting.parsed(readVerifyInterval),
    initially: 'on request only',
    help: 'how often to verify all blobs',
  },
  verifyBytesPerSecond: {
    flags: '--verify-rate <size>',
    kind: setting.size({ least: 1 }),
    initial: limits.verifyBytesPerSecond,
    help: 'bytes a second that verification reads',
  },
});

export const fallbackSection = setting.section('Moving from another server', {
  fallbackUrl: {
    flags: '--fallback-url <url>',
    kind: setting.parsed(readFallbackUrl),
    mayBeEmpty: true,
    help: 'redirect readers of missing files to this server (307)',
  },
  fallbackMode: {
    flags: '--fallback-mode <mode>',
    kind: setting.choice('redirect', 'import'),
    initial: 'redirect',
    help: 'redirect, or import: fetch missing files from there and keep them',
  },
});

/** All settings of the server, in the order of its help. */
export const serverSections = [
  generalSection,
  processSection,
  maintenanceSection,
  accessSection,
  limitsSection,
  fallbackSection,
  enginesSection,
  engineTuningSection,
] as const;

/** The checked settings of a server. */
export interface ServerConfig
  extends
    Omit<Values<typeof generalSection>, 'folder' | 'workers'>,
    Values<typeof maintenanceSection>,
    Values<typeof fallbackSection> {
  /** Absolute path of the store. */
  readonly folder: string;
  readonly workers: number;
  readonly engines: EngineConfig;
  readonly guard: GuardConfig;
}

export type ServerFlags = Flags<typeof generalSection> &
  Flags<typeof maintenanceSection> &
  Flags<typeof fallbackSection> &
  GuardFlags &
  EngineFlags;

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
  const engines = readEngineConfig(flags, environment);
  const guard = readGuardConfig(flags);
  checkCapacity(engines, guard);
  return {
    ...general,
    ...readSettings(maintenanceSection, flags),
    ...fallback,
    folder: general.folder ?? defaultFolder(environment),
    workers: general.workers ?? availableParallelism(),
    engines,
    guard,
  };
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
  const intervalMs = setting.duration().read(text, flag);
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
function checkCapacity(engines: EngineConfig, guard: GuardConfig): void {
  if (engines.catalog === undefined || capacityOf(guard) === undefined) return;
  const { storedBytesMax, filesMax } = guard;
  const quotaFlag = filesMax === undefined ? '--quota' : '--files-max';
  const flag = storedBytesMax === undefined ? quotaFlag : '--store-size-max';
  const state = 'only a catalog in the folder keeps this limit; limit the database and the bucket themselves';
  throw cannot('invalid-argument', `use ${flag} with --catalog`, state);
}
