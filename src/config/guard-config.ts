import type { TlsFiles } from '../access/tls-files.ts';
import { resolve } from 'node:path';
import type { CatalogLimits, Quota } from '../catalog/quotas.ts';
import { isFiletrackerError } from '../core/errors.ts';
import { parseFileName, withoutTrailingSlashes, type FileName } from '../core/file-name.ts';
import * as limits from '../core/limits.ts';
import { timerMs } from '../core/timers.ts';
import type { AnonymousAccess } from '../access/token-access.ts';
import { readDurationFlag, readSizeFlag, refuseFlag } from './flag-values.ts';

/** What protects a server from those who reach it. */
export interface GuardConfig {
  /** Undefined: everything without tokens, nothing with them. */
  readonly anonymous: AnonymousAccess | undefined;
  readonly tls: TlsFiles | undefined;
  readonly fileSizeMaxBytes: number;
  /** Of all blobs as they lie in the store. */
  readonly storedBytesMax: number | undefined;
  readonly filesMax: number | undefined;
  readonly quotas: readonly Quota[];
  /** Undefined: a part of the disk. */
  readonly freeSpaceMinBytes: number | undefined;
  readonly uploadsMax: number;
  /** Of one token, or address; undefined: no more than are left for others. */
  readonly tokenUploadsMax: number | undefined;
  readonly connectionsMax: number;
  /** Undefined: no bound. */
  readonly requestsPerSecond: number | undefined;
  readonly decodingRatioMax: number;
  readonly headersTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly stallTimeoutMs: number;
  /** 0: no bound. */
  readonly bodyBytesPerSecondMin: number;
}

/** Flags as they come from the command line. */
export interface GuardFlags {
  readonly anonymous?: string | undefined;
  readonly tlsCert?: string | undefined;
  readonly tlsKey?: string | undefined;
  readonly tlsClientCa?: string | undefined;
  readonly fileSizeMax?: string | undefined;
  readonly storeSizeMax?: string | undefined;
  readonly filesMax?: string | undefined;
  readonly quota?: readonly string[] | undefined;
  readonly freeSpaceMin?: string | undefined;
  readonly uploadsMax?: string | undefined;
  readonly tokenUploadsMax?: string | undefined;
  readonly connectionsMax?: string | undefined;
  readonly rateMax?: string | undefined;
  readonly unpackRatioMax?: string | undefined;
  readonly headersTimeout?: string | undefined;
  readonly idleTimeout?: string | undefined;
  readonly stallTimeout?: string | undefined;
  readonly bodyRateMin?: string | undefined;
}

/** A whole number; 0 stands for "no bound" where that is allowed. */
function readNumber(flag: string, value: string, least: number): number {
  const number = /^\d{1,12}$/.test(value) ? Number(value) : -1;
  return number >= least ? number : refuseFlag(flag, value, `it must be a whole number from ${least} up`);
}

/** A bound that 0 takes away. */
function readBound(flag: string, value: string | undefined): number | undefined {
  const number = value === undefined ? 0 : readNumber(flag, value, 0);
  return number === 0 ? undefined : number;
}

function readTimeout(flag: string, value: string | undefined, preset: number): number {
  const timeoutMs = value === undefined ? preset : readDurationFlag(flag, value);
  return timeoutMs > 0
    ? timerMs(timeoutMs)
    : refuseFlag(flag, value ?? '', 'without an end a client could wait for ever');
}

function readFileSizeMax(text: string | undefined): number {
  if (text === undefined) return limits.fileSizeMaxBytes;
  const bytes = readSizeFlag('--file-size-max', text);
  return bytes > 0 ? bytes : refuseFlag('--file-size-max', text, 'it must be more than 0');
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
    logicalBytesMax: size === '' ? undefined : readSizeFlag('--quota', size),
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

function readQuotas(texts: readonly string[]): readonly Quota[] {
  const quotas = texts.map(readQuota);
  const twice = quotas.find(({ prefix }, at) => quotas.findIndex((other) => other.prefix === prefix) !== at);
  if (twice !== undefined) refuseFlag('--quota', twice.prefix, 'it is given twice');
  return quotas;
}

function readTls(flags: GuardFlags): TlsFiles | undefined {
  const { tlsCert, tlsKey, tlsClientCa } = flags;
  if (tlsCert === undefined && tlsKey === undefined && tlsClientCa === undefined) return undefined;
  if (tlsCert === undefined || tlsKey === undefined) {
    refuseFlag('--tls-cert', tlsCert ?? '', '--tls-cert and --tls-key go together');
  }
  return {
    key: resolve(tlsKey),
    certificate: resolve(tlsCert),
    clientAuthorities: tlsClientCa === undefined ? undefined : resolve(tlsClientCa),
  };
}

function readAnonymous(text: string | undefined): AnonymousAccess | undefined {
  if (text === undefined || text === 'read' || text === 'none' || text === 'all') return text;
  return refuseFlag('--anonymous', text, 'it must be read, none or all');
}

/** @throws FiletrackerError `invalid-argument`, with the flag and what it may be. */
export function readGuardConfig(flags: GuardFlags): GuardConfig {
  const storeSize =
    flags.storeSizeMax === undefined ? 0 : readSizeFlag('--store-size-max', flags.storeSizeMax);
  return {
    anonymous: readAnonymous(flags.anonymous),
    tls: readTls(flags),
    fileSizeMaxBytes: readFileSizeMax(flags.fileSizeMax),
    storedBytesMax: storeSize === 0 ? undefined : storeSize,
    filesMax: readBound('--files-max', flags.filesMax),
    quotas: readQuotas(flags.quota ?? []),
    freeSpaceMinBytes:
      flags.freeSpaceMin === undefined ? undefined : readSizeFlag('--free-space-min', flags.freeSpaceMin),
    uploadsMax: readNumber('--uploads-max', flags.uploadsMax ?? String(limits.uploadsMax), 1),
    tokenUploadsMax: readBound('--token-uploads-max', flags.tokenUploadsMax),
    connectionsMax: readNumber('--connections-max', flags.connectionsMax ?? String(limits.connectionsMax), 1),
    requestsPerSecond: readBound('--rate-max', flags.rateMax),
    decodingRatioMax: readNumber(
      '--unpack-ratio-max',
      flags.unpackRatioMax ?? String(limits.decodingRatioMax),
      2,
    ),
    headersTimeoutMs: readTimeout('--headers-timeout', flags.headersTimeout, limits.headersTimeoutMs),
    idleTimeoutMs: readTimeout('--idle-timeout', flags.idleTimeout, limits.idleTimeoutMs),
    stallTimeoutMs: readTimeout('--stall-timeout', flags.stallTimeout, limits.stallTimeoutMs),
    bodyBytesPerSecondMin:
      flags.bodyRateMin === undefined
        ? limits.bodyBytesPerSecondMin
        : readSizeFlag('--body-rate-min', flags.bodyRateMin),
  };
}

/** What the catalog must see to; undefined where nothing bounds it, which costs nothing then. */
export function capacityOf(config: GuardConfig): CatalogLimits | undefined {
  const { storedBytesMax, filesMax, quotas } = config;
  if (storedBytesMax === undefined && filesMax === undefined && quotas.length === 0) return undefined;
  const whole: readonly Quota[] =
    filesMax === undefined ? [] : [{ prefix: '/', filesMax, logicalBytesMax: undefined }];
  return { storedBytesMax, quotas: [...whole, ...quotas] };
}
