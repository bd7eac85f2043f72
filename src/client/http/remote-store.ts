import { FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import type { Digest } from '../../core/digest.ts';
import type { Encoding } from '../../core/blob.ts';
import type { FileName } from '../../core/file-name.ts';
import type { FileVersion } from '../../core/file-version.ts';
import type { ListedFile } from '../../protocol/list-format.ts';
import type { ListQuery } from '../../protocol/query.ts';
import type { Chunks } from '../../streams/chunks.ts';

/** A file as the server tells of it. What a legacy server does not tell is undefined. */
export interface RemoteFile {
  readonly name: FileName;
  readonly version: FileVersion;
  /** Bytes of the content before encoding. */
  readonly size: number | undefined;
  readonly digest: Digest | undefined;
  readonly etag: string | undefined;
}

export interface OpenOptions {
  /** Tags of what is held already, for If-None-Match. */
  readonly etags?: readonly string[];
  /** Ask for the identity form from this byte on. */
  readonly first?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What the server answers to a GET. */
export type RemoteAnswer =
  | { readonly kind: 'absent' }
  /** One of the tags still holds. */
  | {
      readonly kind: 'unchanged';
      readonly version: FileVersion | undefined;
      readonly etag: string | undefined;
    }
  | RemoteContent;

export interface RemoteContent {
  readonly kind: 'content';
  readonly file: RemoteFile;
  readonly encoding: Encoding;
  /** Bytes of the body as it travels, if the server says so. */
  readonly transferSize: number | undefined;
  /** Where in the identity form the body begins. */
  readonly first: number;
  /** Whether the body comes from a place that the server named, and not from the server. */
  readonly direct?: boolean | undefined;
  /** The bytes as they travel; to be read once, to the end, or cancelled. */
  readonly body: Chunks;
  /** Gives the body up. Idempotent. */
  cancel(): void;
}

/** A content ready to be sent, as often as it takes. */
export interface UploadContent {
  readonly digest: Digest;
  /** Bytes before encoding. */
  readonly size: number;
  readonly encoding: Encoding;
  /** Bytes as they travel; undefined where they are made on the way, which not every server takes. */
  readonly transferSize: number | undefined;
  /** The bytes: in memory, or read anew at each call. */
  readonly bytes: Buffer | (() => Chunks);
}

export interface UploadAnswer {
  /** The version that is stored under the name now. */
  readonly version: FileVersion;
  /** Whether nothing is stored, because `version` was removed and nothing older is taken back. */
  readonly removed: boolean;
  /** Whether the body was sent; false where the server had the content already. */
  readonly sent: boolean;
}

/** What a server can do. */
export interface RemoteAbilities {
  readonly protocolVersion: number;
  readonly features: ReadonlySet<string>;
}

/**
 * A server as the client sees it. Every method may be repeated safely: what changes something names its
 * version. Errors are FiletrackerError: `unreachable`, `timeout`, `aborted`, and those of the server.
 */
export interface RemoteStore {
  /** For messages. */
  readonly shown: string;
  abilities(options?: { readonly signal?: AbortSignal | undefined }): Promise<RemoteAbilities>;
  stat(
    name: FileName,
    options?: { readonly signal?: AbortSignal | undefined },
  ): Promise<RemoteFile | undefined>;
  open(name: FileName, options?: OpenOptions): Promise<RemoteAnswer>;
  /** @throws LengthRequiredError for a content without a `transferSize`; later abilities lack `chunked-upload` then. */
  put(
    name: FileName,
    version: FileVersion,
    content: UploadContent,
    options?: { readonly signal?: AbortSignal | undefined },
  ): Promise<UploadAnswer>;
  /** Removes versions up to this one. Undefined where there is no such file; else the newer version that stays, if one does. */
  remove(
    name: FileName,
    version: FileVersion,
    options?: { readonly signal?: AbortSignal | undefined },
  ): Promise<{ readonly kept: FileVersion | undefined } | undefined>;
  /** Names below a directory (`/` or `/a/`). */
  listNames(
    directory: string,
    query: ListQuery,
    options?: { readonly signal?: AbortSignal | undefined },
  ): AsyncIterable<FileName>;
  /** The same with versions, sizes and digests; for servers with the feature `list-json`. */
  listFiles(
    directory: string,
    query: ListQuery,
    options?: { readonly signal?: AbortSignal | undefined },
  ): AsyncIterable<ListedFile>;
  /** Idempotent. */
  close(): void;
}

/** Thrown if the body must be sent again with its length. */
export class LengthRequiredError extends FiletrackerError {
  constructor(action: string, peer: string) {
    super('protocol', `Cannot ${action} at ${peer}: it takes no body without a length`);
  }
}

/** The version that a server holds, of a file whose content is damaged too: it can still be removed or replaced. */
export async function remoteVersion(
  remote: Pick<RemoteStore, 'stat'>,
  name: FileName,
  options?: { readonly signal?: AbortSignal | undefined },
): Promise<FileVersion | undefined> {
  try {
    return (await remote.stat(name, options))?.version;
  } catch (error) {
    if (!isFiletrackerError(error, 'damaged-blob') || error.details.version === undefined) throw error;
    return error.details.version;
  }
}
