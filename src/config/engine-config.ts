import type { S3ConnectionOptions } from '../blobs/s3/s3-connection.ts';
import type { ConnectionOptions } from '../catalog/postgres/pools.ts';
import { FiletrackerError } from '../core/errors.ts';
import { withoutTrailingSlashes } from '../core/file-name.ts';
import { shownAddress } from '../core/shown-text.ts';
import { givenFlag, nonEmpty, readDurationFlag, refuseFlag } from './flag-values.ts';

/** Where catalog and blobs are kept; undefined is the folder of the store. */
export interface EngineConfig {
  readonly catalog: ConnectionOptions | undefined;
  readonly blobs: S3ConnectionOptions | undefined;
  /** Whether readers of large files are sent to the object store. */
  readonly redirectDownloads: boolean;
}

/** Flags as they come from the command line. */
export interface EngineFlags {
  readonly catalog?: string | undefined;
  readonly catalogPool?: string | undefined;
  readonly catalogListPool?: string | undefined;
  readonly catalogTimeout?: string | undefined;
  readonly blobs?: string | undefined;
  readonly s3Endpoint?: string | undefined;
  readonly s3PublicEndpoint?: string | undefined;
  readonly s3Region?: string | undefined;
  readonly s3Timeout?: string | undefined;
  readonly s3Connections?: string | undefined;
  readonly s3Checksums?: string | undefined;
  readonly s3Addressing?: string | undefined;
  readonly redirectDownloads?: boolean | undefined;
}

/** Those of them that say how engines are reached, not which. */
export type EngineTuningFlags = Omit<EngineFlags, 'catalog' | 'blobs' | 'redirectDownloads'>;

export const embeddedEngines: EngineConfig = {
  catalog: undefined,
  blobs: undefined,
  redirectDownloads: false,
};

/** Whether anything that is stored lies in the folder. */
export function usesFolder(engines: EngineConfig): boolean {
  return engines.catalog === undefined || engines.blobs === undefined;
}

/** Whether everything that is stored lies in the folder. */
export function liesInFolder(engines: EngineConfig): boolean {
  return engines.catalog === undefined && engines.blobs === undefined;
}

const bucketForm = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/;
const prefixForm = /^(?:[\w.~-]+\/)*$/;
const shortestTimeoutMs = 100;
/** Longer than any operation takes; PostgreSQL and timers hold no more than 24.8 days. */
const longestTimeoutMs = 24 * 3_600_000;

function readTimeout(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const timeoutMs = readDurationFlag(flag, text);
  return timeoutMs >= shortestTimeoutMs
    ? Math.min(timeoutMs, longestTimeoutMs)
    : refuseFlag(flag, text, 'it is too short');
}

function readCount(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const count = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  return count > 0 ? count : refuseFlag(flag, text, 'it must be a whole number from 1 to 99999');
}

/** An address may hold a password: it is not shown. */
function readCatalog(flags: EngineFlags, address: string): ConnectionOptions {
  if (!/^postgres(?:ql)?:\/\//.test(address) || !URL.canParse(address)) {
    throw new FiletrackerError(
      'invalid-argument',
      'Cannot use the address given with --catalog or FILETRACKER_CATALOG: it must be as postgres://user@host:5432/database',
    );
  }
  const url = new URL(address);
  const schema = url.searchParams.get('schema') ?? undefined;
  url.searchParams.delete('schema');
  const timeoutMs = readTimeout('--catalog-timeout', flags.catalogTimeout);
  return {
    url: url.href,
    schema,
    poolSize: readCount('--catalog-pool', flags.catalogPool),
    listPoolSize: readCount('--catalog-list-pool', flags.catalogListPool),
    connectTimeoutMs: timeoutMs === undefined ? undefined : Math.ceil(timeoutMs / 2),
    queryTimeoutMs: timeoutMs,
  };
}

function readEndpoint(flag: string, text: string | undefined): string | undefined {
  if (text === undefined || text === '') return undefined;
  const url = /^https?:\/\//.test(text) && URL.canParse(text) ? new URL(text) : undefined;
  if (url?.username === '' && url.password === '') return withoutTrailingSlashes(text);
  return refuseFlag(
    flag,
    shownAddress(text),
    'it must be an http or https URL without a user and a password',
  );
}

function readBlobs(flags: EngineFlags, address: string): S3ConnectionOptions {
  const [, bucket = '', path = ''] = /^s3:\/\/([^/]+)\/?(.*)$/.exec(address) ?? [];
  const prefix = path === '' || path.endsWith('/') ? path : `${path}/`;
  if (!bucketForm.test(bucket) || !prefixForm.test(prefix)) {
    refuseFlag(
      '--blobs (FILETRACKER_BLOBS)',
      shownAddress(address),
      'it must be as s3://bucket or s3://bucket/prefix',
    );
  }
  const { s3Checksums = 'when-required', s3Addressing = 'path' } = flags;
  if (s3Checksums !== 'when-required' && s3Checksums !== 'when-supported') {
    return refuseFlag('--s3-checksums', s3Checksums, 'it must be when-required or when-supported');
  }
  if (s3Addressing !== 'path' && s3Addressing !== 'virtual-host') {
    return refuseFlag('--s3-addressing', s3Addressing, 'it must be path or virtual-host');
  }
  return {
    bucket,
    prefix,
    endpoint: readEndpoint('--s3-endpoint', flags.s3Endpoint),
    publicEndpoint: readEndpoint('--s3-public-endpoint', flags.s3PublicEndpoint),
    region: flags.s3Region,
    timeoutMs: readTimeout('--s3-timeout', flags.s3Timeout),
    connectionsMax: readCount('--s3-connections', flags.s3Connections),
    checksums: s3Checksums,
    addressing: s3Addressing,
  };
}

/** @throws FiletrackerError `invalid-argument`. */
export function readEngineConfig(
  flags: EngineFlags,
  environment: Readonly<Record<string, string | undefined>>,
): EngineConfig {
  const catalog = givenFlag('--catalog', flags.catalog) ?? nonEmpty(environment['FILETRACKER_CATALOG']);
  const blobs = givenFlag('--blobs', flags.blobs) ?? nonEmpty(environment['FILETRACKER_BLOBS']);
  const redirectDownloads = flags.redirectDownloads ?? false;
  if (redirectDownloads && blobs === undefined) {
    throw new FiletrackerError('invalid-argument', 'Cannot use --redirect-downloads: it needs --blobs');
  }
  return {
    catalog: catalog === undefined ? undefined : readCatalog(flags, catalog),
    blobs: blobs === undefined ? undefined : readBlobs(flags, blobs),
    redirectDownloads,
  };
}
