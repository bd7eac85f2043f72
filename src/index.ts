// The API of the client: the exports of the package.
export { Client } from './client/client.ts';
export { MemoryClient } from './client/memory-client.ts';
export type { ClientOptions } from './client/client-options.ts';
export { defaultCacheDir, optionsFromEnvironment } from './client/client-options.ts';
export type {
  DeletedFile,
  FetchedFile,
  FetchedStream,
  FileClient,
  FileInfo,
  GetFileOptions,
  GetOptions,
  GetStreamOptions,
  ListOptions,
  NameListOptions,
  PutOptions,
  RemoteListOptions,
  StoredFile,
} from './client/file-client.ts';
export type { ProgressListener, TransferProgress } from './client/transfer/download.ts';
export type { HandOut } from './client/cache/materialize.ts';
export { HttpTransport } from './client/http/transport.ts';
export type { HttpTransportOptions } from './client/http/transport-options.ts';
export { LocalCache } from './client/cache/local-cache.ts';
export type { LocalCacheOptions } from './client/cache/local-cache.ts';
export type { CachedFile } from './client/cache/names.ts';
export type { CacheStatus, CacheVerification } from './client/cache/maintenance.ts';
export type { RemoteStore } from './client/http/remote-store.ts';
export type { RetryPolicy } from './client/http/retries.ts';
export type { CallOptions } from './core/concurrency.ts';
export { FiletrackerError, isFiletrackerError } from './core/errors.ts';
export type { ErrorCode, ErrorDetails } from './core/errors.ts';
export { formatVersionedName, parseFileName, parseVersionedName } from './core/file-name.ts';
export type { FileName, GivenName, VersionedName } from './core/file-name.ts';
export type { FileVersion } from './core/file-version.ts';
export type { Digest } from './core/digest.ts';
