import type { TlsFiles } from '../access/tls-files.ts';
import type { CatalogLimits, Quota } from '../catalog/quotas.ts';
import { isFiletrackerError } from '../core/errors.ts';
import { parseFileName, withoutTrailingSlashes, type FileName } from '../core/file-name.ts';
import * as limits from '../core/limits.ts';
import { timerMs } from '../core/timers.ts';
import * as setting from './setting.ts';
import { readSettings, refuseFlag, type Flags, type Kind, type Values } from './setting.ts';

/** A time-out of connections: never 0, because a client could then wait for ever. */
const timeout: Kind<number> = {
  ...setting.duration({ least: 1 }),
  read: (text, flag) => timerMs(setting.duration({ least: 1 }).read(text, flag)),
};

export const accessSection = setting.section('Access and TLS', {
  anonymous: {
    flags: '--anonymous <rights>',
    kind: setting.choice('read', 'none', 'all'),
    initially: 'none; all for a store that never had a token',
    help: 'what clients without a token may do: read, none or all',
  },
  certificate: {
    flags: '--tls-cert <file>',
    kind: setting.path,
    help: 'serve TLS with this certificate (PEM, with its chain); HUP reloads it',
  },
  key: { flags: '--tls-key <file>', kind: setting.path, help: 'private key of the certificate' },
  clientAuthorities: {
    flags: '--tls-client-ca <file>',
    kind: setting.path,
    help: 'accept client certificates signed by these authorities; the common name is the name of a token',
  },
});

export const limitsSection = setting.section('Limits', {
  fileSizeMaxBytes: {
    flags: '--file-size-max <size>',
    kind: setting.size({ least: 1 }),
    initial: limits.fileSizeMaxBytes,
    help: 'largest file, before compression',
  },
  storedBytesMax: {
    flags: '--store-size-max <size>',
    kind: setting.unlessZero(setting.size()),
    initially: 'no limit',
    help: 'maximum size of all blobs as they are stored',
  },
  filesMax: {
    flags: '--files-max <number>',
    kind: setting.unlessZero(setting.count(0)),
    initially: 'no limit',
    help: 'maximum number of names',
  },
  quotas: {
    flags: '--quota <bound>',
    kind: setting.parsed(readQuota),
    many: true,
    help: 'limit of a prefix: /p=10G,5000 for bytes and files, /p=10G or /p=,5000 for one; repeatable',
  },
  freeSpaceMinBytes: {
    flags: '--free-space-min <size>',
    kind: setting.size(),
    initially: '1G or 1%',
    help: 'reject uploads if less is free on the disk',
  },
  uploadsMax: {
    flags: '--uploads-max <number>',
    kind: setting.count(1),
    initial: limits.uploadsMax,
    help: 'maximum concurrent uploads; each worker takes its part of them',
  },
  tokenUploadsMax: {
    flags: '--token-uploads-max <n>',
    kind: setting.unlessZero(setting.count(0)),
    initially: 'a fair share, half of all for one client alone',
    help: 'maximum concurrent uploads per token or client address',
  },
  connectionsMax: {
    flags: '--connections-max <n>',
    kind: setting.count(1),
    initial: limits.connectionsMax,
    help: 'maximum connections; each worker takes its part of them',
  },
  requestsPerSecond: {
    flags: '--rate-max <number>',
    kind: setting.unlessZero(setting.count(0)),
    initially: 'no limit',
    help: 'maximum requests a second per token or client address, of all workers together',
  },
  decodingRatioMax: {
    flags: '--unpack-ratio-max <n>',
    kind: setting.count(2),
    initial: limits.decodingRatioMax,
    help: 'maximum bytes that one byte of gzip may decode to',
  },
  headersTimeoutMs: {
    flags: '--headers-timeout <t>',
    kind: timeout,
    initial: limits.headersTimeoutMs,
    help: 'time for the headers of a request to arrive',
  },
  idleTimeoutMs: {
    flags: '--idle-timeout <time>',
    kind: timeout,
    initial: limits.idleTimeoutMs,
    help: 'time that a connection is kept open between requests',
  },
  stallTimeoutMs: {
    flags: '--stall-timeout <time>',
    kind: timeout,
    initial: limits.stallTimeoutMs,
    help: 'time without a byte of a request body or response',
  },
  bodyBytesPerSecondMin: {
    flags: '--body-rate-min <size>',
    kind: setting.size(),
    initial: limits.bodyBytesPerSecondMin,
    help: 'minimum bytes a second of a request body or response, over the stall timeout; 0 for no minimum',
  },
});

/** The access, TLS and limits of a server. `undefined` is no limit, unless its setting says otherwise. */
export interface GuardConfig
  extends Pick<Values<typeof accessSection>, 'anonymous'>, Values<typeof limitsSection> {
  readonly tls: TlsFiles | undefined;
}

export type GuardFlags = Flags<typeof accessSection> & Flags<typeof limitsSection>;

/** @throws FiletrackerError `invalid-argument`, which names the flag. */
export function readGuardConfig(flags: GuardFlags): GuardConfig {
  const { anonymous, ...tls } = readSettings(accessSection, flags);
  const bounds = readSettings(limitsSection, flags);
  const { quotas } = bounds;
  const twice = quotas.find(({ prefix }, at) => quotas.findIndex((other) => other.prefix === prefix) !== at);
  if (twice !== undefined) refuseFlag('--quota', twice.prefix, 'it is given twice');
  return { anonymous, tls: tlsOf(tls), ...bounds };
}

function tlsOf({
  certificate,
  key,
  clientAuthorities,
}: Omit<Values<typeof accessSection>, 'anonymous'>): TlsFiles | undefined {
  if (certificate !== undefined && key !== undefined) return { key, certificate, clientAuthorities };
  if (certificate === undefined && key === undefined && clientAuthorities === undefined) return undefined;
  return refuseFlag('--tls-cert', certificate ?? '', '--tls-cert and --tls-key go together');
}

/** Reads `/p=10G`, `/p=10G,5000` or `/p=,5000`. */
function readQuota(text: string): Quota {
  const [, prefix = '', size = '', files] = /^(\/[^=]*)=([^,]*)(?:,(\d{1,12}))?$/.exec(text) ?? [];
  if (prefix === '' || (size === '' && files === undefined)) {
    refuseFlag('--quota', text, 'write it as /prefix=10G, /prefix=10G,5000 or /prefix=,5000 (size, files)');
  }
  const trimmed = withoutTrailingSlashes(prefix);
  return {
    prefix: trimmed === '' ? '/' : readPrefix(text, trimmed),
    logicalBytesMax: size === '' ? undefined : setting.size().read(size, '--quota'),
    filesMax: files === undefined ? undefined : Number(files),
  };
}

function readPrefix(text: string, prefix: string): FileName {
  try {
    return parseFileName(prefix);
  } catch (error) {
    if (!isFiletrackerError(error, 'invalid-name')) throw error;
    return refuseFlag('--quota', text, 'its prefix is not a name');
  }
}

/** The limits that the catalog keeps; `undefined` if there are none, which costs nothing. */
export function capacityOf(config: GuardConfig): CatalogLimits | undefined {
  const { storedBytesMax, filesMax, quotas } = config;
  if (storedBytesMax === undefined && filesMax === undefined && quotas.length === 0) return undefined;
  const whole: readonly Quota[] =
    filesMax === undefined ? [] : [{ prefix: '/', filesMax, logicalBytesMax: undefined }];
  return { storedBytesMax, quotas: [...whole, ...quotas] };
}
