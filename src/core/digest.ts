import { createHash, hash } from 'node:crypto';
import { cannot } from './errors.ts';

declare const digestBrand: unique symbol;

/** SHA-256 of content before compression: 64 lower-case hex digits. */
export type Digest = string & { readonly [digestBrand]: true };

const digestForm = /^[0-9a-f]{64}$/;

/** Bytes of a digest in the catalog and the journal. */
const digestSizeBytes = 32;

export function isDigest(text: string): text is Digest {
  return digestForm.test(text);
}

/**
 * Reads a peer's digest; upper-case digits are accepted. A digest becomes part of a path, so every one must pass this
 * check. @throws FiletrackerError `invalid-digest`.
 */
export function parseDigest(text: string): Digest {
  const lower = text.toLowerCase();
  if (isDigest(lower)) return lower;
  throw cannot('invalid-digest', 'read the digest', 'it must be 64 hex digits of SHA-256');
}

/** The digest of bytes in memory, in one call. */
export function digestOf(bytes: Uint8Array): Digest {
  return hash('sha256', bytes, 'hex') as Digest;
}

/** The digest of bytes that arrive in pieces. */
export class DigestMeter {
  readonly #hash = createHash('sha256');

  update(bytes: Uint8Array): void {
    this.#hash.update(bytes);
  }

  /** Ends the computation; may be called once. */
  finish(): Digest {
    return this.#hash.digest('hex') as Digest;
  }
}

export function digestToBytes(digest: Digest): Buffer {
  return Buffer.from(digest, 'hex');
}

/** Reads 32 bytes at `offset`. */
export function digestFromBytes(bytes: Uint8Array, offset = 0): Digest {
  return Buffer.from(bytes.buffer, bytes.byteOffset + offset, digestSizeBytes).toString('hex') as Digest;
}
