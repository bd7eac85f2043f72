import type { Digest } from './digest.ts';
import type { Encoding } from './encoding.ts';

/** What tells a blob, and how it lies in the store. */
export interface BlobDescription {
  readonly digest: Digest;
  readonly encoding: Encoding;
  /** Bytes before encoding. */
  readonly logicalSize: number;
  /** Bytes as they lie in the store. */
  readonly storedSize: number;
}
