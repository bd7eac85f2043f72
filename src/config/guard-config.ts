import type { TlsFiles } from '../access/tls-files.ts';
import type { CatalogLimits, Quota } from '../catalog/quotas.ts';
import { isFiletrackerError } from '../core/errors.ts';
import { parseFileName, withoutTrailingSlashes, type FileName } from '../core/file-name.ts';
import * as limits from '../core/limits.ts';
import { timerMs } from '../core/timers.ts';
import {
  choice,
  count,
  duration,
  option,
  parsed,
  path,
  readSettings,
  refuseFlag,
  section,
  size,
  unlessZero,
  type Flags,
  type Kind,
  type Values,
} from './setting.ts';

/** A time-out of connections: never 0, because a client could then wait for ever. */
const timeout: Kind<number> = {
  ...duration({ least: 1 }),
  read: (text, flag) => timerMs(duration({ least: 1 }).read(text, flag)),
};

export const accessSection = section('Access and TLS', {
  anonymous: option(
    '--anonymous <rights>',
    'what clients without a token may do: read, none or all',
    choice('read', 'none', 'all'),
    { initially: 'none; all for a store that never had a token' },
  ),
  certificate: option(
    '--tls-cert <file>',
    'serve TLS with this certificate (PEM, with its chain); HUP reloads it',
    path,
  ),
  key: option('--tls-key <file>', 'private key of the certificate', path),
  clientAuthorities: option(
    '--tls-client-ca <file>',
    'accept client certificates signed by these authorities; the common name is the name of a token',
    path,
  ),
});

export const limitsSection = section('Limits', {
  fileSizeMaxBytes: option(
    '--file-size-max <size>',
    'maximum size of a file, before compression',
    size({ least: 1 }),
    {
      initial: limits.fileSizeMaxBytes,
    },
  ),
  storedBytesMax: option(
    '--store-size-max <size>',
    'maximum total size of blobs, as stored',
    unlessZero(size()),
    { initially: '0, no limit' },
  ),
  filesMax: option('--files-max <number>', 'maximum number of names', unlessZero(count(0)), {
    initially: '0, no limit',
  }),
  quotas: option(
    '--quota <bound>',
    'limit of a prefix: /p=10G,5000 for bytes and files, /p=10G or /p=,5000 for one; repeatable',
    parsed(readQuota),
    { many: true },
  ),
  freeSpaceMinBytes: option('--free-space-min <size>', 'reject uploads if less is free on the disk', size(), {
    initially: '1G or 1%',
  }),
  uploadsMax: option(
    '--uploads-max <number>',
    'maximum concurrent uploads, divided among the workers',
    count(1),
    { initial: limits.uploadsMax },
  ),
  tokenUploadsMax: option(
    '--token-uploads-max <n>',
    'maximum concurrent uploads per token or client address',
    unlessZero(count(0)),
    { initially: '0, a fair share: at most half of all' },
  ),
  connectionsMax: option(
    '--connections-max <n>',
    'maximum connections, divided among the workers',
    count(1),
    { initial: limits.connectionsMax },
  ),
  requestsPerSecond: option(
    '--rate-max <number>',
    'maximum requests a second per token or client address, over all workers',
    unlessZero(count(0)),
    { initially: '0, no limit' },
  ),
  decodingRatioMax: option(
    '--unpack-ratio-max <n>',
    'maximum bytes that one byte of gzip may decode to',
    count(2),
    { initial: limits.decodingRatioMax },
  ),
  headersTimeoutMs: option(
    '--headers-timeout <t>',
    'maximum time for the headers of a request to arrive',
    timeout,
    {
      initial: limits.headersTimeoutMs,
    },
  ),
  idleTimeoutMs: option(
    '--idle-timeout <time>',
    'how long to keep a connection open between requests',
    timeout,
    { initial: limits.idleTimeoutMs },
  ),
  stallTimeoutMs: option(
    '--stall-timeout <time>',
    'maximum time without a byte of a request body or response',
    timeout,
    { initial: limits.stallTimeoutMs },
  ),
  bodyBytesPerSecondMin: option(
    '--body-rate-min <size>',
    'minimum bytes a second of a request body or response, averaged over the stall timeout; 0 for no minimum',
    size(),
    { initial: limits.bodyBytesPerSecondMin },
  ),
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
  const [, prefix = '', bytes = '', files] = /^(\/[^=]*)=([^,]*)(?:,(\d{1,12}))?$/.exec(text) ?? [];
  if (prefix === '' || (bytes === '' && files === undefined)) {
    refuseFlag('--quota', text, 'write it as /prefix=10G, /prefix=10G,5000 or /prefix=,5000 (size, files)');
  }
  const trimmed = withoutTrailingSlashes(prefix);
  return {
    prefix: trimmed === '' ? '/' : readPrefix(text, trimmed),
    logicalBytesMax: bytes === '' ? undefined : size().read(bytes, '--quota'),
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
