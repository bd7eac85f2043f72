import type { Digest } from '../../core/digest.ts';
import type { Encoding } from '../../core/blob.ts';
import type { FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import type { Chunks } from '../../streams/chunks.ts';

/** A file on the old server. */
export interface OldFile {
  readonly version: FileVersion;
  /** What the old server says of it; what it does not say is undefined. */
  readonly size: number | undefined;
  readonly digest: Digest | undefined;
  readonly encoding: Encoding;
  /** Bytes of the body as it travels. */
  readonly transferSize: number | undefined;
  readonly body: Chunks;
  /** Gives the body up. Idempotent. */
  cancel(): void;
}

/**
 * The server that files are being moved from, as far as an import needs it.
 * All methods throw FiletrackerError: `unreachable`, `timeout` … of the way there.
 */
export interface OldServer {
  version(name: FileName, signal?: AbortSignal): Promise<FileVersion | undefined>;
  open(name: FileName, signal?: AbortSignal): Promise<OldFile | undefined>;
  /** Names below a directory, in any order; none where there is no such directory. */
  list(directory: string, upTo: FileVersion | undefined, signal?: AbortSignal): AsyncIterable<FileName>;
}
