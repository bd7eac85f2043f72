import type { CallOptions } from '../../core/concurrency.ts';
import type { Digest } from '../../core/digest.ts';
import type { Encoding } from '../../core/blob.ts';
import { FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import type { FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import type { ListedFile } from '../../protocol/list-format.ts';
import type { ListQuery } from '../../protocol/query.ts';
import type { Chunks } from '../../streams/chunks.ts';

/** A file as the server describes it. */
export interface RemoteFile {
  readonly name: FileName;
  readonly version: FileVersion;
  /** Bytes before encoding; `undefined` if a legacy server does not state them. */
  readonly size: number | undefined;
  /** `undefined` from a legacy server. */
  readonly digest: Digest | undefined;
  readonly etag: string | undefined;
}

export interface OpenOptions extends CallOptions {
  /** ETags of what the caller holds, for If-None-Match. */
  readonly etags?: readonly string[];
  /** Request the identity form from this byte on. */
  readonly first?: number | undefined;
}

/** The response to a GET. `unchanged`: one of the ETags still matches. */
export type RemoteResponse =
  | { readonly kind: 'absent' }
  | {
      readonly kind: 'unchanged';
      readonly version: FileVersion | undefined;
      readonly etag: string | undefined;
    }
  | RemoteContent;

/** The body of a GET. Must be read to its end or cancelled. */
export interface RemoteContent {
  readonly kind: 'content';
  readonly file: RemoteFile;
  readonly encoding: Encoding;
  /** Bytes of the body as it travels, if the server states them. */
  readonly transferSize: number | undefined;
  /** Position of the body's first byte in the identity form. */
  readonly first: number;
  /** Whether another place that the server named sends the body. */
  readonly direct?: boolean | undefined;
  /** The bytes as they travel; to be read once. */
  readonly body: Chunks;
  /** Idempotent. */
  cancel(): void;
}

/** A blob to send, any number of times. */
export interface UploadContent {
  readonly digest: Digest;
  /** Bytes before encoding. */
  readonly size: number;
  readonly encoding: Encoding;
  /** Bytes as they travel; `undefined` if they are encoded on the way, which not every server accepts. */
  readonly transferSize: number | undefined;
  /** The bytes: in memory, or read again at each call. */
  readonly bytes: Buffer | (() => Chunks);
}

export interface UploadResult {
  /** The version that is now stored under the name. */
  readonly version: FileVersion;
  /** Whether nothing was stored, because `version` was removed and older versions are refused since. */
  readonly removed: boolean;
  /** Whether the body was sent; `false` if the server had the blob already. */
  readonly sent: boolean;
}

export interface RemoteCapabilities {
  readonly protocolVersion: number;
  readonly features: ReadonlySet<string>;
}

/**
 * A server as the client uses it. Every method may be repeated safely: one that changes something names its
 * version. Rejects with FiletrackerError: `unreachable`, `timeout`, `aborted`, and the server's own codes.
 *
 * @example
 * ```ts
 * import { HttpTransport, parseFileName } from 'filetracker';
 * import type { RemoteStore } from 'filetracker';
 *
 * const { FILETRACKER_URL: url = '' } = process.env;
 * const remote: RemoteStore = new HttpTransport(url);
 * console.log(remote.shown, await remote.stat(parseFileName('/examples/none')));
 * remote.close();
 * ```
 */
export interface RemoteStore {
  /** The address of the server, without user info, for messages. */
  readonly shown: string;
  /** The server's capabilities. */
  abilities(options?: CallOptions): Promise<RemoteCapabilities>;
  /** Looks a file up; `undefined` if there is none. */
  stat(name: FileName, options?: CallOptions): Promise<RemoteFile | undefined>;
  open(name: FileName, options?: OpenOptions): Promise<RemoteResponse>;
  /** @throws LengthRequiredError for a blob without a `transferSize`; from then on `abilities` lack `chunked-upload`. */
  put(
    name: FileName,
    version: FileVersion,
    content: UploadContent,
    options?: CallOptions,
  ): Promise<UploadResult>;
  /** Removes all versions up to this one. Returns the newer version that stays, if any; `undefined` if there is no such file. */
  remove(
    name: FileName,
    version: FileVersion,
    options?: CallOptions,
  ): Promise<{ readonly kept: FileVersion | undefined } | undefined>;
  /** Names below a directory (`/` or `/a/`). */
  listNames(directory: string, query: ListQuery, options?: CallOptions): AsyncIterable<FileName>;
  /** The same with versions, sizes and digests, from servers with the feature `list-json`. */
  listFiles(directory: string, query: ListQuery, options?: CallOptions): AsyncIterable<ListedFile>;
  /** Closes all connections. Idempotent. */
  close(): void;
}

/** The body must be sent again, with its length. */
export class LengthRequiredError extends FiletrackerError {
  constructor(action: string, peer: string) {
    super('protocol', `Cannot ${action} at ${peer}: it accepts no body without a length`);
  }
}

/** The version on the server, also of a file whose blob is damaged: it can still be removed or replaced. */
export async function remoteVersion(
  remote: Pick<RemoteStore, 'stat'>,
  name: FileName,
  options?: CallOptions,
): Promise<FileVersion | undefined> {
  try {
    return (await remote.stat(name, options))?.version;
  } catch (error) {
    if (!isFiletrackerError(error, 'damaged-blob') || error.details.version === undefined) throw error;
    return error.details.version;
  }
}
