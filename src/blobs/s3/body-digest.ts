import { createHash, createHmac, webcrypto, type BinaryLike } from 'node:crypto';
import { setImmediate as otherWork } from 'node:timers/promises';

/** Size from which the digest is computed off the main thread. */
const offThreadSizeBytes = 64 * 1024;
/** Size from which no copy is made for another thread: a part of a very large upload. */
const inPiecesSizeBytes = 16 * 1024 * 1024;
/** Bytes digested in one turn of the event loop: less than a millisecond. */
const pieceSizeBytes = 512 * 1024;

/**
 * SHA-256 for the AWS SDK, which signs requests with it. The signature covers the body, so that the whole part of an
 * upload is digested: that happens off the main thread.
 */
export class BodyDigest {
  readonly #secret: BinaryLike | undefined;
  #parts: Uint8Array[] = [];

  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.#secret = secret === undefined ? undefined : typeof secret === 'string' ? secret : bytesOf(secret);
  }

  update(data: string | ArrayBuffer | ArrayBufferView): void {
    this.#parts.push(typeof data === 'string' ? Buffer.from(data) : bytesOf(data));
  }

  async digest(): Promise<Uint8Array> {
    const [first = new Uint8Array(), ...others] = this.#parts;
    const bytes = others.length === 0 ? first : Buffer.concat(this.#parts);
    if (this.#secret !== undefined) return createHmac('sha256', this.#secret).update(bytes).digest();
    if (bytes.length < offThreadSizeBytes) return createHash('sha256').update(bytes).digest();
    if (bytes.length > inPiecesSizeBytes) return digestInPieces(bytes);
    return new Uint8Array(await webcrypto.subtle.digest('SHA-256', bytes));
  }

  reset(): void {
    this.#parts = [];
  }
}

async function digestInPieces(bytes: Uint8Array): Promise<Uint8Array> {
  const hash = createHash('sha256');
  for (let start = 0; start < bytes.length; start += pieceSizeBytes) {
    hash.update(bytes.subarray(start, start + pieceSizeBytes));
    await otherWork();
  }
  return hash.digest();
}

function bytesOf(data: ArrayBuffer | ArrayBufferView): Uint8Array {
  return ArrayBuffer.isView(data)
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    : new Uint8Array(data);
}
