import type { Digest } from './digest.ts';

/** How the bytes of a blob are stored, and how a body is sent. */
export type Encoding = 'identity' | 'gzip';

export const encodings: readonly Encoding[] = ['identity', 'gzip'];

export interface BlobDescription {
  readonly digest: Digest;
  readonly encoding: Encoding;
  /** Bytes before encoding. */
  readonly logicalSize: number;
  /** Bytes after encoding. */
  readonly storedSize: number;
}
