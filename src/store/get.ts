import type { Readable } from 'node:stream';
import type { BlobStore } from '../blobs/blob-store.ts';
import type { Catalog, LocatedEntry } from '../catalog/catalog.ts';
import { digestOf } from '../core/digest.ts';
import { FiletrackerError, isFiletrackerError } from '../core/errors.ts';
import type { FileName } from '../core/file-name.ts';
import { lookUpsMax, readCacheItemMaxBytes } from '../core/limits.ts';
import type { ReportProblem } from '../core/report.ts';
import { collectChunks, streamOver, type Chunks } from '../streams/chunks.ts';
import { ContentMeter } from '../streams/content-meter.ts';
import { gunzipBytes, gunzipChunks } from '../streams/gzip-decoder.ts';
import type { Entry, FileStore, OpenFile, ReadOptions, StoredFile } from './file-store.ts';
import { ReadCache } from './read-cache.ts';

/**
 * Looks a file up and opens it; again if its bytes were moved, replaced or collected in between.
 * `undefined` if there is no such file.
 * @throws FiletrackerError `damaged-blob`, `range-not-satisfiable`.
 */
export async function openFile(
  store: Pick<FileStore, 'lookUp'>,
  name: FileName,
  options: ReadOptions,
): Promise<OpenFile | undefined> {
  for (let lookUps = 1; ; lookUps += 1) {
    const found = await store.lookUp(name);
    if (found === undefined) return undefined;
    const file = await found.open(options);
    if (file !== undefined) return file;
    if (lookUps === lookUpsMax) throw lostBlob(found.entry);
  }
}

/** A range of stored or decoded bytes, as `Buffer.subarray` and a blob store take it. */
interface Section {
  readonly start: number;
  readonly length: number;
}

/**
 * The path of a GET: look up a name, then open the bytes. Small blobs are read whole and kept in memory for a while,
 * large ones are streams. A body never has more or fewer bytes than the entry says: a blob that differs is damaged,
 * and is marked so that the next put of the content replaces it.
 */
export class GetPath {
  readonly #catalog: Catalog;
  readonly #blobs: BlobStore;
  readonly #cache: ReadCache;
  readonly #reportProblem: ReportProblem;

  constructor(parts: {
    readonly catalog: Catalog;
    readonly blobs: BlobStore;
    readonly cacheSizeBytes: number;
    readonly reportProblem: ReportProblem;
  }) {
    this.#catalog = parts.catalog;
    this.#blobs = parts.blobs;
    this.#cache = new ReadCache(parts.cacheSizeBytes);
    this.#reportProblem = parts.reportProblem;
  }

  async lookUp(name: FileName): Promise<StoredFile | undefined> {
    const found = await this.#catalog.find(name);
    return found && new FoundFile(this, found);
  }

  /** As `StoredFile.open`. */
  async open(found: LocatedEntry, options: ReadOptions): Promise<OpenFile | undefined> {
    const { entry } = found;
    if (found.damaged) {
      this.#forget(entry);
      throw damagedBlob(entry, 'it is known to be damaged');
    }
    const decode = options.form === 'identity' && entry.encoding !== 'identity';
    const section = sectionOf(options, decode ? entry.logicalSize : entry.storedSize);
    const body = await (decode
      ? this.#openDecoded(found, section, options.signal)
      : this.#openStored(found, section, options.signal));
    return body && { entry, encoding: decode ? 'identity' : entry.encoding, size: section.length, body };
  }

  /** As `StoredFile.redirectUrl`. */
  async redirectUrl(
    { entry, location, damaged }: LocatedEntry,
    lifetimeSeconds: number,
  ): Promise<string | undefined> {
    if (damaged || location.kind !== 'object') return undefined;
    return this.#blobs.presign(location.key, lifetimeSeconds, entry.encoding);
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
    return streamOver(stream, this.#digestedChunks(entry, stream));
  }

  /** Holds the last piece back until the digest is known, so that a damaged content never comes to its end. */
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

  /** The stored bytes of a small blob. Not abortable: other requests may be waiting for the same bytes. */
  #loadStored(found: LocatedEntry): Promise<Buffer | undefined> {
    const { entry, location } = found;
    return this.#cache.load(storedKey(entry), async () => {
      if (location.kind === 'inline') return this.#checked(entry, await location.read());
      const stream = await this.#blobs.open(location.key, { storedSize: entry.storedSize });
      const bytes = this.#checked(entry, stream && (await collectChunks(stream)));
      const unproven = entry.encoding === 'identity' && this.#blobs.capabilities.digestOnRead;
      if (bytes !== undefined && unproven && digestOf(bytes) !== entry.digest) {
        throw this.#damaged(entry, wrongDigest);
      }
      return bytes;
    });
  }

  #checked(entry: Entry, bytes: Buffer | undefined): Buffer | undefined {
    if (bytes === undefined || bytes.length === entry.storedSize) return bytes;
    const state = `it has ${bytes.length} bytes in the store instead of ${entry.storedSize}`;
    throw this.#damaged(entry, state);
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
      return bytes && streamOver(undefined, this.#decodedChunks(entry, [bytes], section), signal);
    }
    const stored = await this.#blobs.open(location.key, { storedSize: entry.storedSize, signal });
    return stored && streamOver(stored, this.#decodedChunks(entry, stored, section), signal);
  }

  #loadDecoded(found: LocatedEntry): Promise<Buffer | undefined> {
    const { entry } = found;
    return this.#cache.load(entry.digest, async () => {
      const stored = await this.#loadStored(found);
      if (stored === undefined) return undefined;
      let bytes: Buffer;
      try {
        bytes = await gunzipBytes(stored, { sizeMaxBytes: entry.logicalSize });
      } catch (error) {
        throw this.#decodingFailed(entry, error);
      }
      if (bytes.length !== entry.logicalSize) throw this.#damaged(entry, wrongSize(entry, bytes.length));
      return bytes;
    });
  }

  /** The bytes of a section. If it reaches the end, all of the blob is checked, else what precedes its end. */
  async *#decodedChunks(
    entry: Entry,
    stored: Chunks | readonly Buffer[],
    section: Section,
  ): AsyncGenerator<Buffer> {
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
    if (isFiletrackerError(error, 'corrupt-encoding')) {
      return this.#damaged(entry, 'its gzip stream is broken', error);
    }
    if (isFiletrackerError(error, 'too-large')) {
      return this.#damaged(entry, `it unpacks to more than ${entry.logicalSize} bytes`, error);
    }
    return error;
  }

  /** Marks a blob as damaged; its error. */
  #damaged(entry: Entry, state: string, cause?: unknown): FiletrackerError {
    const error = damagedBlob(entry, state, cause);
    this.#forget(entry);
    this.#reportProblem(`Cannot read the blob "${entry.digest}" of "${entry.name}"`, error);
    this.#catalog.markDamaged(entry.digest, true).catch((failure: unknown) => {
      this.#reportProblem(`Cannot mark the blob "${entry.digest}" as damaged`, failure);
    });
    return error;
  }

  /** Intact bytes may later replace damaged ones under the same key. */
  #forget(entry: Entry): void {
    this.#cache.forget(storedKey(entry));
  }
}

class FoundFile implements StoredFile {
  readonly #path: GetPath;
  readonly #found: LocatedEntry;

  constructor(path: GetPath, found: LocatedEntry) {
    this.#path = path;
    this.#found = found;
  }

  get entry(): Entry {
    return this.#found.entry;
  }

  get damaged(): boolean {
    return this.#found.damaged;
  }

  open(options: ReadOptions): Promise<OpenFile | undefined> {
    return this.#path.open(this.#found, options);
  }

  redirectUrl(lifetimeSeconds: number): Promise<string | undefined> {
    return this.#path.redirectUrl(this.#found, lifetimeSeconds);
  }
}

/**
 * Names stored bytes in the cache; the digest alone names decoded ones. The name of gzip bytes includes their size,
 * because a blob that was collected and stored again may be compressed differently.
 */
function storedKey(entry: Entry): string {
  return entry.encoding === 'identity' ? entry.digest : `${entry.digest} ${entry.storedSize}`;
}

/** The error of a blob that cannot be read as it was stored. Names the digest, because a blob may have many names. */
export function damagedBlob(entry: Entry, state: string, cause?: unknown): FiletrackerError {
  return new FiletrackerError('damaged-blob', `Cannot read the blob "${entry.digest}": ${state}`, {
    cause,
    details: { digest: entry.digest },
  });
}

/** The error of a blob whose bytes cannot be found. It is not marked: a disk that is not mounted may come back. */
export function lostBlob(entry: Entry): FiletrackerError {
  return damagedBlob(entry, 'its bytes are not in the store');
}

const wrongDigest = 'its bytes have another digest';

function wrongSize(entry: Entry, actualBytes: number): string {
  return `it unpacks to ${actualBytes} bytes instead of ${entry.logicalSize}`;
}

function sectionOf({ range }: ReadOptions, sizeBytes: number): Section {
  if (range === undefined) return { start: 0, length: sizeBytes };
  const { first, last } = range;
  if (first < 0 || first > last || last >= sizeBytes) {
    const text = `Cannot read bytes ${first} to ${last}: the file has ${sizeBytes} bytes`;
    throw new FiletrackerError('range-not-satisfiable', text, { details: { actual: sizeBytes } });
  }
  return { start: first, length: last - first + 1 };
}

function slice(bytes: Buffer, { start, length }: Section): Buffer {
  return length === bytes.length ? bytes : bytes.subarray(start, start + length);
}
