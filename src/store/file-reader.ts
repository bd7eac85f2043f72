import { Readable } from 'node:stream';
import type { BlobStore } from '../blobs/blob-store.ts';
import type { Entry, LocatedEntry } from '../catalog/catalog.ts';
import { digestOf } from '../core/digest.ts';
import { FiletrackerError, isFiletrackerError } from '../core/errors.ts';
import { readCacheItemMaxBytes } from '../core/limits.ts';
import { joined, type Chunks } from '../streams/chunks.ts';
import { ContentMeter } from '../streams/content-meter.ts';
import { gunzipBytes, gunzipChunks } from '../streams/gzip-decoder.ts';
import type { OpenFile, ReadOptions } from './file-store.ts';
import { ReadCache } from './read-cache.ts';

const wrongDigest = 'its bytes have another digest';

/** A range of identity bytes, as `Buffer.subarray` and a blob store take it. */
interface Section {
  readonly start: number;
  readonly length: number;
}

/** Told of a blob whose bytes turned out not to be what was stored. */
export type DamageFound = (entry: Entry, error: unknown) => void;

/**
 * Gives the bytes of entries: small contents whole, from memory where they were read lately, large ones as
 * streams. Never more or fewer bytes than the entry says: what differs is damaged.
 */
export class FileReader {
  readonly #blobs: BlobStore;
  readonly #cache: ReadCache;
  readonly #damageFound: DamageFound;

  constructor(blobs: BlobStore, options: { cacheSizeBytes: number; damageFound: DamageFound }) {
    this.#blobs = blobs;
    this.#cache = new ReadCache(options.cacheSizeBytes);
    this.#damageFound = options.damageFound;
  }

  /**
   * Opens what a look-up has found. Undefined where the bytes are gone since then: look up again.
   * @throws FiletrackerError `damaged-blob`.
   */
  async open(found: LocatedEntry, options: ReadOptions): Promise<OpenFile | undefined> {
    const { entry } = found;
    if (entry.encoding === 'identity' || options.form === 'stored') {
      const body = await this.#openStored(found, sectionOf(options, entry.storedSize), options.signal);
      return body && openFile(entry, entry.encoding, sectionOf(options, entry.storedSize), body);
    }
    const section = sectionOf(options, entry.logicalSize);
    const body = await this.#openDecoded(found, section, options.signal);
    return body && openFile(entry, 'identity', section, body);
  }

  /** Told that the bytes of an entry are damaged: sound ones may take their place under the same digest. */
  forget(entry: Entry): void {
    this.#cache.forget(storedKey(entry));
  }

  async #openStored(
    found: LocatedEntry,
    section: Section,
    signal: AbortSignal | undefined,
  ): Promise<Buffer | Readable | undefined> {
    const { entry, location } = found;
    if (location.kind === 'inline' || entry.storedSize <= readCacheItemMaxBytes) {
      const bytes = this.#cache.get(storedKey(entry)) ?? (await this.#loadStored(found));
      return bytes && slice(bytes, section);
    }
    const options = { range: section, storedSize: entry.storedSize, signal };
    const stream = await this.#blobs.open(location.key, options);
    const whole = entry.encoding === 'identity' && section.length === entry.storedSize;
    if (stream === undefined || !whole || !this.#blobs.capabilities.digestOnRead) return stream;
    const digested = Readable.from(this.#digestedChunks(entry, stream), { objectMode: false });
    // A stream that is given up before it is read never comes to iterate what it would have read from.
    digested.once('close', () => stream.destroy());
    return digested;
  }

  /** The last piece waits for the digest: a content that is not what it should be never comes to its end. */
  async *#digestedChunks(entry: Entry, stored: Readable): AsyncGenerator<Uint8Array> {
    const meter = new ContentMeter();
    let last: Uint8Array | undefined;
    for await (const piece of meter.measure(stored)) {
      if (last !== undefined) yield last;
      last = piece;
    }
    if (meter.finish().digest !== entry.digest) throw this.#damaged(entry, wrongDigest);
    if (last !== undefined) yield last;
  }

  /** The stored bytes of a small content. Not abortable: others may be waiting for the same bytes. */
  #loadStored(found: LocatedEntry): Promise<Buffer | undefined> {
    const { entry, location } = found;
    return this.#cache.load(storedKey(entry), async () => {
      let bytes: Buffer | undefined;
      if (location.kind === 'inline') {
        bytes = await location.read();
      } else {
        const stream = await this.#blobs.open(location.key, { storedSize: entry.storedSize });
        bytes = stream && (await collect(stream));
      }
      if (bytes !== undefined && bytes.length !== entry.storedSize) {
        throw this.#damaged(
          entry,
          `it has ${bytes.length} bytes in the store instead of ${entry.storedSize}`,
        );
      }
      const checked = location.kind === 'object' && entry.encoding === 'identity';
      if (checked && bytes !== undefined) this.#checkDigest(entry, bytes);
      return bytes;
    });
  }

  #checkDigest(entry: Entry, bytes: Buffer): void {
    if (!this.#blobs.capabilities.digestOnRead || digestOf(bytes) === entry.digest) return;
    throw this.#damaged(entry, wrongDigest);
  }

  async #openDecoded(
    found: LocatedEntry,
    section: Section,
    signal: AbortSignal | undefined,
  ): Promise<Buffer | Readable | undefined> {
    const { entry, location } = found;
    if (entry.logicalSize <= readCacheItemMaxBytes) {
      const bytes = this.#cache.get(entry.digest) ?? (await this.#loadDecoded(found));
      return bytes && slice(bytes, section);
    }
    if (location.kind === 'inline' || entry.storedSize <= readCacheItemMaxBytes) {
      const bytes = this.#cache.get(storedKey(entry)) ?? (await this.#loadStored(found));
      return bytes && this.#decodedStream(entry, onePiece(bytes), section, signal);
    }
    const stored = await this.#blobs.open(location.key, { storedSize: entry.storedSize, signal });
    if (stored === undefined) return undefined;
    const content = this.#decodedStream(entry, stored, section, signal);
    // A stream that is given up before it is read never comes to iterate what it would have read from.
    content.once('close', () => stored.destroy());
    return content;
  }

  #loadDecoded(found: LocatedEntry): Promise<Buffer | undefined> {
    const { entry } = found;
    return this.#cache.load(entry.digest, async () => {
      const stored = await this.#loadStored(found);
      if (stored === undefined) return undefined;
      const bytes = await this.#decode(entry, stored);
      if (bytes.length !== entry.logicalSize) throw this.#damaged(entry, wrongSize(entry, bytes.length));
      return bytes;
    });
  }

  async #decode(entry: Entry, stored: Buffer): Promise<Buffer> {
    try {
      return await gunzipBytes(stored, { sizeMaxBytes: entry.logicalSize });
    } catch (error) {
      throw this.#decodingFailed(entry, error);
    }
  }

  #decodedStream(entry: Entry, stored: Chunks, section: Section, signal: AbortSignal | undefined): Readable {
    const content = this.#decodedChunks(entry, stored, section);
    return Readable.from(content, { objectMode: false, ...(signal === undefined ? {} : { signal }) });
  }

  /** The bytes of a section. One that reaches the end is checked to the last byte, any other as far as it goes. */
  async *#decodedChunks(entry: Entry, stored: Chunks, section: Section): AsyncGenerator<Buffer> {
    const endByte = section.start + section.length;
    let passedBytes = 0;
    try {
      for await (const piece of gunzipChunks(stored, { sizeMaxBytes: entry.logicalSize })) {
        const wanted = piece.subarray(Math.max(0, section.start - passedBytes), endByte - passedBytes);
        passedBytes += piece.length;
        if (wanted.length > 0) yield wanted;
        if (passedBytes >= endByte && endByte < entry.logicalSize) return;
      }
    } catch (error) {
      throw this.#decodingFailed(entry, error);
    }
    if (passedBytes !== entry.logicalSize) throw this.#damaged(entry, wrongSize(entry, passedBytes));
  }

  #decodingFailed(entry: Entry, error: unknown): unknown {
    if (isFiletrackerError(error, 'corrupt-encoding'))
      return this.#damaged(entry, 'its gzip is broken', error);
    if (isFiletrackerError(error, 'too-large')) {
      return this.#damaged(entry, `it unpacks to more than ${entry.logicalSize} bytes`, error);
    }
    return error;
  }

  #damaged(entry: Entry, state: string, cause?: unknown): FiletrackerError {
    const error = damagedBlob(entry, state, cause);
    this.forget(entry);
    this.#damageFound(entry, error);
    return error;
  }
}

/**
 * Names stored bytes in the cache; decoded ones go by the digest alone. The size belongs to the name of gzip,
 * because a content that was collected and came again may be compressed otherwise.
 */
function storedKey(entry: Entry): string {
  return entry.encoding === 'identity' ? entry.digest : `${entry.digest} ${entry.storedSize}`;
}

/** The error of a content that cannot be given as it was stored; names it by digest, for it may have many names. */
export function damagedBlob(entry: Entry, state: string, cause?: unknown): FiletrackerError {
  return new FiletrackerError('damaged-blob', `Cannot read the content "${entry.digest}": ${state}`, {
    cause,
    details: { digest: entry.digest },
  });
}

function wrongSize(entry: Entry, actualBytes: number): string {
  return `it unpacks to ${actualBytes} bytes instead of ${entry.logicalSize}`;
}

function sectionOf(options: ReadOptions, sizeBytes: number): Section {
  if (options.range === undefined) return { start: 0, length: sizeBytes };
  const { first, last } = options.range;
  if (first < 0 || first > last || last >= sizeBytes) {
    const text = `Cannot read bytes ${first} to ${last}: the file has ${sizeBytes} bytes`;
    throw new FiletrackerError('range-not-satisfiable', text, { details: { actual: sizeBytes } });
  }
  return { start: first, length: last - first + 1 };
}

function openFile(
  entry: Entry,
  encoding: OpenFile['encoding'],
  section: Section,
  body: Buffer | Readable,
): OpenFile {
  return { entry, encoding, size: section.length, body };
}

function slice(bytes: Buffer, section: Section): Buffer {
  if (section.length === bytes.length) return bytes;
  return bytes.subarray(section.start, section.start + section.length);
}

async function* onePiece(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}

async function collect(source: Chunks): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of source) parts.push(part);
  return joined(parts);
}
