import { resolve } from 'node:path';
import type { S3ConnectionOptions } from '../blobs/s3/s3-connection.ts';
import type { ConnectionOptions } from '../catalog/postgres/pools.ts';
import { cannot } from '../core/errors.ts';
import { withoutTrailingSlashes } from '../core/file-name.ts';
import { shownAddress } from '../core/shown-text.ts';
import {
  choice,
  count,
  duration,
  flag,
  option,
  parsed,
  readSettings,
  refuseFlag,
  section,
  text,
  type Environment,
  type Flags,
  type Kind,
} from './setting.ts';

const bucketForm = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/;
const prefixForm = /^(?:[\w.~-]+\/)*$/;
/** Longer than any operation takes; PostgreSQL and timers hold no more than 24.8 days. */
const longestTimeoutMs = 24 * 3_600_000;

const timeout: Kind<number> = {
  ...duration({ least: 100 }),
  read: (text, flag) => Math.min(duration({ least: 100 }).read(text, flag), longestTimeoutMs),
};
const connections = count(1, 99_999);

/** Which back ends hold a store. */
export const backEndsSection = section('Back ends', {
  catalog: option(
    '--catalog <url>',
    'keep the catalog in PostgreSQL: postgres://host/database[?schema=NAME]',
    parsed(readCatalogAddress),
    { variable: 'FILETRACKER_CATALOG', initially: 'the folder' },
  ),
  blobs: option('--blobs <url>', 'keep large blobs in S3: s3://bucket/prefix', parsed(readBucketAddress), {
    variable: 'FILETRACKER_BLOBS',
    initially: 'the folder',
  }),
  redirectDownloads: flag(
    '--redirect-downloads',
    'redirect readers of large files to S3 with a signed URL (307)',
  ),
});

/** How the back ends are reached. */
export const connectionsSection = section('Connections to PostgreSQL and S3', {
  poolSize: option('--catalog-pool <number>', 'connections to PostgreSQL per worker', connections, {
    initially: '20',
  }),
  listPoolSize: option(
    '--catalog-list-pool <number>',
    'additional connections per worker for lists; each page that is read takes one',
    connections,
    { initially: '5' },
  ),
  queryTimeoutMs: option('--catalog-timeout <time>', 'longest wait for PostgreSQL', timeout, {
    initially: '10s',
  }),
  endpoint: option(
    '--s3-endpoint <url>',
    'address of an S3 server other than Amazon’s',
    parsed(readEndpoint),
    { mayBeEmpty: true },
  ),
  publicEndpoint: option(
    '--s3-public-endpoint <url>',
    'address of that server for --redirect-downloads',
    parsed(readEndpoint),
    { mayBeEmpty: true, initially: '--s3-endpoint' },
  ),
  region: option('--s3-region <region>', 'region of the bucket', text, {
    mayBeEmpty: true,
    initially: '$AWS_REGION, else us-east-1',
  }),
  timeoutMs: option(
    '--s3-timeout <time>',
    'longest wait for S3; for a part of an upload, four times that',
    timeout,
    { initially: '15s' },
  ),
  connectionsMax: option('--s3-connections <number>', 'connections to S3 per worker', connections, {
    initially: '128',
  }),
  addressing: option(
    '--s3-addressing <form>',
    'position of the bucket in a URL: path or virtual-host',
    choice('path', 'virtual-host'),
    { initial: 'path' },
  ),
  checksums: option(
    '--s3-checksums <when>',
    'when to send and check checksums: when-required or when-supported',
    choice('when-required', 'when-supported'),
    { initial: 'when-required' },
  ),
});

/** The back ends of a store; `undefined` is its folder. */
export interface BackEndConfig {
  readonly catalog: ConnectionOptions | undefined;
  readonly blobs: S3ConnectionOptions | undefined;
  /** Whether readers of large files are redirected to the object store. */
  readonly redirectDownloads: boolean;
}

export type ConnectionFlags = Flags<typeof connectionsSection>;
export type BackEndFlags = Flags<typeof backEndsSection> & ConnectionFlags;

export const embeddedBackEnds: BackEndConfig = {
  catalog: undefined,
  blobs: undefined,
  redirectDownloads: false,
};

/** Whether a part of the store is in its folder. */
export function usesFolder(backEnds: BackEndConfig): boolean {
  return backEnds.catalog === undefined || backEnds.blobs === undefined;
}

/** Whether the whole store is in its folder. */
export function isInFolder(backEnds: BackEndConfig): boolean {
  return backEnds.catalog === undefined && backEnds.blobs === undefined;
}

/** @throws FiletrackerError `invalid-argument`. */
export function readBackEndConfig(flags: BackEndFlags, environment: Environment): BackEndConfig {
  const { catalog, blobs, redirectDownloads = false } = readSettings(backEndsSection, flags, environment);
  if (redirectDownloads && blobs === undefined) {
    throw cannot('invalid-argument', 'use --redirect-downloads', 'it needs --blobs');
  }
  const isUsed = catalog !== undefined || blobs !== undefined;
  const { poolSize, listPoolSize, queryTimeoutMs, ...s3 } = readSettings(
    connectionsSection,
    isUsed ? flags : {},
  );
  const connectTimeoutMs = queryTimeoutMs === undefined ? undefined : Math.ceil(queryTimeoutMs / 2);
  return {
    catalog: catalog && { ...catalog, poolSize, listPoolSize, connectTimeoutMs, queryTimeoutMs },
    blobs: blobs && { ...blobs, ...s3 },
    redirectDownloads,
  };
}

/** The address may contain a password, so the error does not show it. */
function readCatalogAddress(address: string, flag: string): Pick<ConnectionOptions, 'url' | 'schema'> {
  if (!/^postgres(?:ql)?:\/\//.test(address) || !URL.canParse(address)) {
    const state = 'write it as postgres://user@host:5432/database';
    throw cannot('invalid-argument', `use the address in ${flag}`, state);
  }
  const url = new URL(address);
  const schema = url.searchParams.get('schema') ?? undefined;
  url.searchParams.delete('schema');
  return { url: url.href, schema };
}

function readBucketAddress(address: string, flag: string): Pick<S3ConnectionOptions, 'bucket' | 'prefix'> {
  const [, bucket = '', path = ''] = /^s3:\/\/([^/]+)\/?(.*)$/.exec(address) ?? [];
  const prefix = path === '' || path.endsWith('/') ? path : `${path}/`;
  if (bucketForm.test(bucket) && prefixForm.test(prefix)) return { bucket, prefix };
  return refuseFlag(flag, shownAddress(address), 'write it as s3://bucket or s3://bucket/prefix');
}

function readEndpoint(text: string, flag: string): string {
  const url = /^https?:\/\//.test(text) && URL.canParse(text) ? new URL(text) : undefined;
  if (url?.username === '' && url.password === '') return withoutTrailingSlashes(text);
  const state = 'it must be an http or https URL without a user and a password';
  return refuseFlag(flag, shownAddress(text), state);
}

/** The address of a store, for programs that use several. */
export interface StoreAddress {
  /** Absolute; `undefined` if nothing is in a folder. */
  readonly folder: string | undefined;
  readonly backEnds: BackEndConfig;
}

/** Whether an address names a back end other than a folder. */
export function namesBackEnds(text: string): boolean {
  return /(?:^|,)(?:postgres(?:ql)?|s3):/.test(text);
}

/**
 * Reads the address of a store: a folder, `postgres://…,s3://…`, or a folder and one of them.
 * @throws FiletrackerError `invalid-argument`.
 */
export function readStoreAddress(text: string, flags: ConnectionFlags = {}): StoreAddress {
  const parts = text.split(',').filter((part) => part !== '');
  const take = (form: RegExp): string | undefined => {
    const at = parts.findIndex((part) => form.test(part));
    return at === -1 ? undefined : parts.splice(at, 1)[0];
  };
  const catalog = take(/^postgres(?:ql)?:/);
  const blobs = take(/^s3:/);
  const [folder, ...others] = parts;
  const complete = folder !== undefined || (catalog !== undefined && blobs !== undefined);
  if (!complete || others.length > 0) {
    const state = 'write it as DIR, postgres://…,s3://…, or DIR with one of these';
    throw cannot('invalid-argument', 'use the address of a store', state);
  }
  const backEnds = readBackEndConfig({ ...flags, catalog, blobs }, {});
  return { folder: folder === undefined ? undefined : resolve(folder), backEnds };
}
