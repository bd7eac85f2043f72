// What `import … from 'filetracker'` gives: the client's API.
export { Client } from './client/client.ts';
export { MemoryClient } from './client/memory-client.ts';
export type { ClientOptions } from './client/client-options.ts';
export { defaultCacheDir, optionsFromEnvironment } from './client/client-options.ts';
export type {
  CallOptions,
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
export type { ProgressListener, TransferProgress } from './client/download.ts';
export type { HandOut } from './client/hand-out.ts';
export { HttpTransport } from './client/http-transport.ts';
export type { HttpTransportOptions } from './client/http-transport.ts';
export { LocalCache } from './client/local-cache.ts';
export type { CachedFile, LocalCacheOptions } from './client/local-cache.ts';
export type { CacheStatus, CacheVerification } from './client/local-cache-check.ts';
export type { RemoteStore } from './client/remote-store.ts';
export type { RetryPolicy } from './client/retries.ts';
export { FiletrackerError, isFiletrackerError } from './core/errors.ts';
export type { ErrorCode, ErrorDetails } from './core/errors.ts';
export { formatVersionedName, parseFileName, parseVersionedName } from './core/file-name.ts';
export type { FileName, GivenName, VersionedName } from './core/file-name.ts';
export type { FileVersion } from './core/file-version.ts';
export type { Digest } from './core/digest.ts';
