import type { BlobStore } from '../blobs/blob-store.ts';
import type { BlobPin, BlobRecord, Catalog, PutChange, PutContent, PutOutcome } from '../catalog/catalog.ts';
import type { BlobDescription, Encoding } from '../core/blob.ts';
import type { Digest } from '../core/digest.ts';
import { FiletrackerError, isFiletrackerError } from '../core/errors.ts';
import type { ReportProblem } from '../core/report.ts';
import { bodyChunks, GatheredBytes, type Chunks } from '../streams/chunks.ts';
import { ContentMeter, type ContentMeasure } from '../streams/content-meter.ts';
import { gunzipChunks, type DecodingBounds } from '../streams/gzip-decoder.ts';
import { MemoryBudget, withCollectedBody } from './body-collector.ts';
import {
  checkClaims,
  checkedBody,
  checkedContent,
  checkWhole,
  measureBytes,
  measureChunks,
} from './body-verifier.ts';
import { encodeBytes, encodeChunks, tightRoom, wideRoom, wideRoomBytes } from './content-encoder.ts';
import { ContentSink } from './content-sink.ts';
import type { PutBody, PutIntent } from './file-store.ts';
import type { StoreLimits } from './store-limits.ts';

export interface IngestOptions {
  readonly catalog: Catalog;
  readonly blobs: BlobStore;
  readonly limits: StoreLimits;
  readonly reportProblem: ReportProblem;
}

/** What a change says of its content. */
export type ContentOfChange = BlobDescription & Pick<PutChange, 'content' | 'offeredSize'>;

/** What a put whose content was there can come to. */
export type SettledPut = Exclude<PutOutcome, { readonly kind: 'content-missing' }>;

/** A verified content, and how large it was as it came. */
interface OfferedContent {
  readonly measure: ContentMeasure;
  readonly sizeBytes: number;
}

/** The same in its stored form, written to a sink. */
interface ReceivedContent extends OfferedContent {
  readonly encoding: Encoding;
}

/** Counts what passes. */
class CountedChunks implements AsyncIterable<Uint8Array> {
  readonly #source: Chunks;
  sizeBytes = 0;

  constructor(source: Chunks) {
    this.#source = source;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for await (const chunk of this.#source) {
      this.sizeBytes += chunk.length;
      yield chunk;
    }
  }
}

/**
 * Takes bodies in: reads, verifies, encodes, commits.
 *
 * Small bodies are collected in memory and verified before anything is encoded or written; when they are
 * small in stored form too, they go to the catalog inside the change. Large ones are staged while they pass.
 * A body is read to its end and verified even where its bytes are not needed, because an answer must not
 * depend on what else is stored: a newer version, or the same content. What is saved then is the writing.
 *
 * A content that is stored already is relied on only if its bytes are there, in their size: whether the blob store has lost
 * them shows to nobody else before the next read. If they are not, what has come takes their place.
 *
 * A put of an older version than is stored is done as soon as its body is verified: it took effect, which is
 * none, at the instant of the look-up.
 */
export class Ingest {
  readonly #catalog: Catalog;
  readonly #blobs: BlobStore;
  readonly #limits: StoreLimits;
  readonly #reportProblem: ReportProblem;
  readonly #budget: MemoryBudget;
  readonly #bounds: DecodingBounds;
  readonly #inlineSizeMaxBytes: number;
  /** Whether the catalog bounds the size of all contents. */
  readonly #bounded: boolean;

  constructor(options: IngestOptions) {
    const { catalog, blobs, limits, reportProblem } = options;
    this.#catalog = catalog;
    this.#blobs = blobs;
    this.#limits = limits;
    this.#reportProblem = reportProblem;
    this.#budget = new MemoryBudget(limits.bufferedBodiesTotalMaxBytes);
    this.#inlineSizeMaxBytes = catalog.capabilities.inlineSizeMaxBytes;
    this.#bounded = Number.isFinite(limits.storedBytesMax);
    this.#bounds = {
      sizeMaxBytes: limits.fileSizeMaxBytes,
      ratioMax: limits.decodingRatioMax,
      ratioFreeBytes: limits.decodingRatioFreeBytes,
    };
  }

  /** @throws as `FileStore.put`. */
  async put(intent: PutIntent, body: PutBody, signal: AbortSignal | undefined): Promise<SettledPut> {
    const { source, encoding, announcedSize } = body;
    if (Buffer.isBuffer(source)) {
      checkWhole(source.length, announcedSize);
      return this.#putBytes(intent, new GatheredBytes([source]), encoding, signal);
    }
    const chunks = checkedBody(bodyChunks(source, signal), announcedSize, this.#limits.fileSizeMaxBytes);
    const sizeMaxBytes = this.#limits.bufferedBodyMaxBytes;
    if ((announcedSize ?? 0) > sizeMaxBytes) return this.#putStream(intent, chunks, body, signal);
    return withCollectedBody(chunks, { sizeMaxBytes, budget: this.#budget }, (collected) =>
      collected.kind === 'whole'
        ? this.#putBytes(intent, collected.bytes, encoding, signal)
        : this.#putStream(intent, collected.chunks, body, signal),
    );
  }

  /** Tells the catalog of a content. Nothing can abort it any more. */
  commit(intent: PutIntent, content: ContentOfChange): Promise<PutOutcome> {
    const { name, version, precondition, firstSentMs } = intent;
    return this.#catalog.put({
      name,
      version,
      ...content,
      ...(precondition !== undefined && { precondition }),
      ...(firstSentMs !== undefined && { firstSentMs }),
    });
  }

  /** A sound blob whose bytes are there. */
  async findStored(digest: Digest): Promise<BlobRecord | undefined> {
    const blob = await this.#catalog.findBlob(digest);
    return blob !== undefined && !blob.damaged && (await this.#isThere(blob)) ? blob : undefined;
  }

  /** What the catalog holds itself is as sound as the catalog. */
  async #isThere({ location, storedSize }: BlobRecord): Promise<boolean> {
    return location.kind !== 'object' || (await this.#blobs.size(location.key)) === storedSize;
  }

  /**
   * Tells the catalog of a content whose bytes the change brings. Where it relied on bytes that are not there, the brought
   * ones take their place.
   */
  async #commitBrought(intent: PutIntent, content: ContentOfChange): Promise<SettledPut> {
    const outcome = settled(await this.commit(intent, content));
    if (outcome.kind !== 'stored' || outcome.object === undefined) return outcome;
    const { key, storedSize } = outcome.object;
    if ((await this.#blobs.size(key)) === storedSize) return outcome;
    await this.#giveUpLost(content.digest);
    return settled(await this.commit(intent, content));
  }

  /** Makes the catalog take the bytes of the next put of a content, as it has lost its own. */
  async #giveUpLost(digest: Digest): Promise<void> {
    this.#reportProblem(
      `Cannot find the bytes of the content "${digest}": an upload replaces them`,
      undefined,
    );
    await this.#catalog.markDamaged(digest, true);
  }

  async #putBytes(
    intent: PutIntent,
    body: GatheredBytes,
    encoding: Encoding,
    signal: AbortSignal | undefined,
  ): Promise<SettledPut> {
    const measuring = measureBytes(body, encoding, this.#bounds, intent.claims);
    const measure = measuring instanceof Promise ? await measuring : measuring;
    checkClaims(intent.claims, measure);
    // What travels inside the change and need not be encoded costs no more than asking for it first.
    const offered = { measure, sizeBytes: body.sizeBytes };
    if (encoding === 'gzip' && body.sizeBytes <= this.#inlineSizeMaxBytes) {
      return this.#commitInline(intent, offered, encoding, body.join());
    }
    const known = await this.#putKnown(intent, offered);
    if (known !== undefined) return known;
    const bytes = body.join();
    if (encoding === 'gzip') return this.#putEncoded(intent, offered, encoding, bytes, signal);
    const encoded = await encodeBytes(bytes, this.#limits.compressionLevel);
    return this.#putEncoded(intent, offered, encoded.encoding, encoded.bytes, signal);
  }

  /** Carries a put, all of which has come, out without its bytes if the content is stored; else gives undefined. */
  async #putKnown(intent: PutIntent, offered: OfferedContent): Promise<SettledPut | undefined> {
    const blob = await this.#catalog.findBlob(offered.measure.digest);
    if (blob === undefined || blob.damaged) return undefined;
    if (!(await this.#isThere(blob))) {
      await this.#giveUpLost(blob.digest);
      return undefined;
    }
    const { storedSize, encoding } = blob;
    const content = this.#contentOf(offered, encoding, storedSize, { kind: 'stored' });
    const outcome = await this.commit(intent, content);
    return outcome.kind === 'content-missing' ? undefined : outcome;
  }

  async #putEncoded(
    intent: PutIntent,
    offered: OfferedContent,
    encoding: Encoding,
    bytes: Buffer,
    signal: AbortSignal | undefined,
  ): Promise<SettledPut> {
    if (bytes.length <= this.#inlineSizeMaxBytes) return this.#commitInline(intent, offered, encoding, bytes);
    return this.#withSink(signal, async (sink) => {
      sink.expect(encoding);
      await sink.write(bytes);
      return this.#commitSink(intent, { ...offered, encoding }, sink);
    });
  }

  async #commitInline(
    intent: PutIntent,
    offered: OfferedContent,
    encoding: Encoding,
    bytes: Buffer,
  ): Promise<SettledPut> {
    const content = this.#contentOf(offered, encoding, bytes.length, { kind: 'inline', bytes });
    return this.#commitBrought(intent, content);
  }

  async #commitSink(intent: PutIntent, received: ReceivedContent, sink: ContentSink): Promise<SettledPut> {
    const content = await sink.seal();
    try {
      const stored = this.#contentOf(received, received.encoding, sink.sizeBytes, content);
      return await this.#commitBrought(intent, stored);
    } catch (error) {
      if (!isFiletrackerError(error, 'not-found')) throw error;
      const text = `Cannot store "${intent.name}": its upload was given up meanwhile, try again`;
      throw new FiletrackerError('unavailable', text, { cause: error });
    }
  }

  async #putStream(
    intent: PutIntent,
    body: Chunks,
    { encoding, announcedSize = intent.claims.logicalSize }: PutBody,
    signal: AbortSignal | undefined,
  ): Promise<SettledPut> {
    const current = (await this.#catalog.find(intent.name))?.entry;
    if (current !== undefined && current.version > intent.version && intent.precondition === undefined) {
      await this.#verify(intent, body, encoding);
      return { kind: 'superseded', version: current.version };
    }
    const pin = intent.claims.digest && (await this.#catalog.pin(intent.claims.digest));
    if (pin !== undefined) {
      if (await this.#isThere(pin.blob)) return this.#putPinned(intent, body, encoding, pin);
      await this.#release(pin);
    }
    return this.#withSink(signal, async (sink) => {
      const received = await this.#receive(intent, body, { encoding, announcedSize }, sink);
      // Asked before the upload is sealed, because sealing syncs it.
      const known = await this.#putKnown(intent, received);
      return known ?? (await this.#commitSink(intent, received, sink));
    });
  }

  /** A put of a content that is stored and will be until the pin is released. */
  async #putPinned(intent: PutIntent, body: Chunks, encoding: Encoding, pin: BlobPin): Promise<SettledPut> {
    try {
      const arriving = new CountedChunks(body);
      const measure = await this.#verify(intent, arriving, encoding);
      const { storedSize, encoding: storedEncoding } = pin.blob;
      const offered = { measure, sizeBytes: arriving.sizeBytes };
      const content = this.#contentOf(offered, storedEncoding, storedSize, { kind: 'stored' });
      return settled(await this.commit(intent, content));
    } finally {
      await this.#release(pin);
    }
  }

  async #release(pin: BlobPin): Promise<void> {
    await pin.release().catch((error: unknown) => this.#reportProblem('Cannot release a content', error));
  }

  /** Reads a body to its end and checks it, and keeps nothing. */
  async #verify(intent: PutIntent, body: Chunks, encoding: Encoding): Promise<ContentMeasure> {
    const content = encoding === 'gzip' ? gunzipChunks(body, this.#bounds) : body;
    const { fileSizeMaxBytes } = this.#limits;
    const measure = await measureChunks(checkedContent(content, intent.claims, fileSizeMaxBytes));
    checkClaims(intent.claims, measure);
    return measure;
  }

  /** Reads a body to its end, checks it, and writes its stored form to a sink. */
  async #receive(
    intent: PutIntent,
    body: Chunks,
    { encoding, announcedSize }: Pick<PutBody, 'encoding' | 'announcedSize'>,
    sink: ContentSink,
  ): Promise<ReceivedContent> {
    if (encoding === 'gzip') {
      sink.expect(encoding, announcedSize);
      const measure = await this.#verify(intent, sink.tee(body), encoding);
      return { measure, encoding, sizeBytes: sink.sizeBytes };
    }
    const meter = new ContentMeter();
    const content = meter.measure(checkedContent(body, intent.claims, this.#limits.fileSizeMaxBytes));
    const storedEncoding = await this.#encode(content, announcedSize, sink);
    const measure = meter.finish();
    checkClaims(intent.claims, measure);
    return { measure, encoding: storedEncoding, sizeBytes: measure.sizeBytes };
  }

  /** Writes the stored form of a content to a sink, with as much memory as the budget has left for it. */
  async #encode(content: Chunks, announcedSize: number | undefined, sink: ContentSink): Promise<Encoding> {
    const wide = this.#budget.tryTake(wideRoomBytes);
    try {
      const room = wide ? wideRoom : tightRoom;
      const encoded = await encodeChunks(content, this.#limits.compressionLevel, room);
      sink.expect(encoded.encoding, announcedSize);
      for await (const chunk of encoded.bytes) await sink.write(chunk);
      return encoded.encoding;
    } finally {
      if (wide) this.#budget.giveBack(wideRoomBytes);
    }
  }

  #contentOf(
    offered: OfferedContent,
    encoding: Encoding,
    storedSize: number,
    content: PutContent,
  ): ContentOfChange {
    const { digest, sizeBytes: logicalSize } = offered.measure;
    const stored = { digest, logicalSize, storedSize, encoding, content };
    return this.#bounded ? { ...stored, offeredSize: offered.sizeBytes } : stored;
  }

  /** Opens a sink, and discards what was written to it unless it has become the stored content. */
  async #withSink(
    signal: AbortSignal | undefined,
    use: (sink: ContentSink) => Promise<SettledPut>,
  ): Promise<SettledPut> {
    const sink = new ContentSink(this.#blobs, this.#inlineSizeMaxBytes, signal);
    let placed = false;
    try {
      const outcome = await use(sink);
      placed = outcome.kind === 'stored' && !outcome.deduplicated;
      return outcome;
    } finally {
      if (!placed) {
        await sink
          .discard()
          .catch((error: unknown) => this.#reportProblem('Cannot discard an upload', error));
      }
    }
  }
}

/** A content that was brought, or pinned, can be missing only if it was found damaged just now. */
function settled(outcome: PutOutcome): SettledPut {
  if (outcome.kind !== 'content-missing') return outcome;
  throw new FiletrackerError(
    'unavailable',
    'Cannot store the file: its content was just found damaged, try again',
  );
}
