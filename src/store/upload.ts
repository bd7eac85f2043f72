import type { BlobStore } from '../blobs/blob-store.ts';
import type { BlobPin } from '../catalog/catalog.ts';
import type { Encoding } from '../core/blob.ts';
import type { ReportProblem } from '../core/report.ts';
import { bodyChunks, GatheredBytes, type Chunks } from '../streams/chunks.ts';
import { ContentMeter, type ContentMeasure } from '../streams/content-meter.ts';
import { freeNow } from '../streams/freed-memory.ts';
import { gunzipChunks, smallPieces, type DecodingBounds } from '../streams/gzip-decoder.ts';
import { collectAnnounced, collectInMemory } from './body-collector.ts';
import {
  checkClaims,
  checkedBody,
  checkedContent,
  checkWhole,
  measureBytes,
  measureChunks,
} from './body-verifier.ts';
import {
  encodeBytes,
  encodeChunks,
  littleMemory,
  ampleMemory,
  ampleMemoryBytes,
  type EncodedContent,
} from './content-encoder.ts';
import { ContentSink } from './content-sink.ts';
import type { PutBody, PutIntent, StoreLimits } from './file-store.ts';
import type { MemoryBudget } from '../core/memory-budget.ts';
import { PassingBody } from '../streams/passing-body.ts';

/** A verified content. */
export interface VerifiedContent {
  readonly measure: ContentMeasure;
  /** Bytes of the body as they came; `undefined` if there was no body. */
  readonly bodyBytes: number | undefined;
}

/** What all uploads of a store share. */
export interface UploadContext {
  readonly blobs: BlobStore;
  readonly limits: StoreLimits;
  readonly bounds: DecodingBounds;
  readonly inlineSizeMaxBytes: number;
  /** Memory for collecting bodies and encoding content. */
  readonly budget: MemoryBudget;
  readonly reportProblem: ReportProblem;
}

/** A put with its body. */
interface UploadOfBody {
  readonly intent: PutIntent;
  readonly body: PutBody;
  readonly signal: AbortSignal | undefined;
}

/**
 * The body of one put on its way into the store. Small bodies are collected in memory and verified before anything is
 * encoded or written. Large bodies are encoded and staged while they pass and are verified.
 *
 * Invariant: `release` frees all that an upload holds (memory, a hold, staged bytes).
 */
export class Upload {
  readonly intent: PutIntent;
  readonly body: PutBody;
  /** The whole body in memory, or a large one that passes once. */
  readonly received: GatheredBytes | Chunks;
  /** Set if a newer version is stored: the bytes are not needed. */
  newerVersion: number | undefined;
  /** Set if the claimed content is stored, and keeps it from collection: the bytes are not needed. */
  hold: BlobPin | undefined;
  /** Whether nothing uses the bytes of a body in memory any more, no thread either. */
  bytesAreUnused = false;
  /** Whether the staged bytes have become the blob. */
  placed = false;
  readonly #context: UploadContext;
  readonly #signal: AbortSignal | undefined;
  readonly #releaseMemory: ((isUnused: boolean) => Promise<void>) | undefined;
  readonly #passing: PassingBody | undefined;
  #sink: ContentSink | undefined;

  private constructor(
    request: UploadOfBody,
    context: UploadContext,
    taken: {
      readonly received: GatheredBytes | Chunks;
      readonly release?: (isUnused: boolean) => Promise<void>;
      readonly passing?: PassingBody;
    },
  ) {
    this.intent = request.intent;
    this.body = request.body;
    this.received = taken.received;
    this.#context = context;
    this.#signal = request.signal;
    this.#releaseMemory = taken.release;
    this.#passing = taken.passing;
  }

  /** Takes a body in: at once if it is in memory already, a small one when all of it has come. */
  static receive(request: UploadOfBody, context: UploadContext): Upload | Promise<Upload> {
    const { body, signal } = request;
    const { source, encoding, announcedSize } = body;
    const { limits, budget } = context;
    if (Buffer.isBuffer(source)) {
      checkWhole(source.length, announcedSize);
      return new Upload(request, context, { received: new GatheredBytes([source]) });
    }
    const checked = (chunks: Chunks): Chunks => checkedBody(chunks, announcedSize, limits.fileSizeMaxBytes);
    const { bufferedBodyMaxBytes, bufferedGzipBodyMaxBytes } = limits;
    const sizeMaxBytes = encoding === 'gzip' ? bufferedGzipBodyMaxBytes : bufferedBodyMaxBytes;
    if (announcedSize === undefined) {
      const chunks = checked(bodyChunks(source, signal));
      return collectInMemory(chunks, { sizeMaxBytes: bufferedBodyMaxBytes, budget }).then(
        (collected) => new Upload(request, context, collected),
      );
    }
    const collecting = { budget, freesPieces: body.freesPieces ?? false, signal };
    if (announcedSize <= sizeMaxBytes) {
      return collectAnnounced(source, announcedSize, collecting).then(({ received, release }) => {
        const isWhole = received instanceof GatheredBytes;
        return new Upload(request, context, { received: isWhole ? received : checked(received), release });
      });
    }
    if (encoding === 'identity') {
      return new Upload(request, context, { received: checked(bodyChunks(source, signal)) });
    }
    const passing = new PassingBody(source, collecting);
    const upload: Upload = new Upload(request, context, {
      received: checked(passing.chunks(async () => upload.#isWritten())),
      passing,
    });
    return upload;
  }

  /** Waits until what came is written. Returns whether its memory may be freed: also if it is not written at all. */
  async #isWritten(): Promise<boolean> {
    return this.#sink === undefined || (await this.#sink.written());
  }

  /** Whether the body is so small, and in its stored form already, that a change can carry it as it is. */
  get fitsChange(): boolean {
    const { received, body } = this;
    if (body.encoding !== 'gzip' || !(received instanceof GatheredBytes)) return false;
    return received.sizeBytes <= this.#context.inlineSizeMaxBytes;
  }

  /** Reads the body to its end, checks all that is claimed of it, and stages a large one whose bytes are needed. */
  async verify(): Promise<VerifiedContent> {
    const content = await this.#measure();
    checkClaims(this.intent.claims, content.measure);
    return content;
  }

  #measure(): VerifiedContent | Promise<VerifiedContent> {
    const { received, body, intent } = this;
    if (received instanceof GatheredBytes) {
      const { bounds, budget, limits } = this.#context;
      const { bufferedGzipBodyMaxBytes: decodedMaxBytes } = limits;
      const memory = { budget, decodedMaxBytes };
      const measure = measureBytes(received, {
        encoding: body.encoding,
        claims: intent.claims,
        bounds,
        memory,
      });
      const bodyBytes = received.sizeBytes;
      if (!(measure instanceof Promise)) return { measure, bodyBytes };
      return measure.then((measured) => ({ measure: measured, bodyBytes }));
    }
    if (this.newerVersion !== undefined || this.hold !== undefined) return this.#measurePassing(received);
    return body.encoding === 'gzip' ? this.#stageGzip(received) : this.#stagePlain(received);
  }

  async #measurePassing(chunks: Chunks): Promise<VerifiedContent> {
    let bodyBytes = 0;
    async function* counted(): AsyncGenerator<Uint8Array> {
      for await (const chunk of chunks) {
        bodyBytes += chunk.length;
        yield chunk;
      }
    }
    const { bounds, limits } = this.#context;
    await this.#passing?.begin();
    const pieces = this.#passing?.decodedPieces ?? smallPieces;
    const content = this.body.encoding === 'gzip' ? gunzipChunks(counted(), bounds, pieces) : counted();
    const checked = checkedContent(content, this.intent.claims, limits.fileSizeMaxBytes);
    // Nothing else uses decoded pieces; those of the body may still be being written.
    const onDone = this.body.encoding === 'gzip' ? freeNow : undefined;
    return { measure: await measureChunks(checked, onDone), bodyBytes };
  }

  /** A gzip body is stored as it comes. */
  #stageGzip(chunks: Chunks): Promise<VerifiedContent> {
    return this.#measurePassing(this.#openSink('gzip', this.#announcedSize).tee(chunks));
  }

  /** Writes the stored form of a plain body to a sink, with as much memory as the budget can spare. */
  async #stagePlain(chunks: Chunks): Promise<VerifiedContent> {
    const { limits, budget } = this.#context;
    const meter = new ContentMeter();
    const content = meter.measure(checkedContent(chunks, this.intent.claims, limits.fileSizeMaxBytes));
    const ample = budget.tryTake(ampleMemoryBytes);
    try {
      const encoded = await encodeChunks(
        content,
        limits.compressionLevel,
        ample ? ampleMemory : littleMemory,
      );
      const sink = this.#openSink(encoded.encoding, this.#announcedSize);
      for await (const chunk of encoded.bytes) await sink.write(chunk);
    } finally {
      if (ample) budget.giveBack(ampleMemoryBytes);
    }
    const measure = meter.finish();
    return { measure, bodyBytes: measure.sizeBytes };
  }

  get #announcedSize(): number | undefined {
    return this.body.announcedSize ?? this.intent.claims.logicalSize;
  }

  #openSink(encoding: Encoding, announcedSize?: number): ContentSink {
    const { blobs, inlineSizeMaxBytes } = this.#context;
    this.#sink = new ContentSink(blobs, {
      inlineSizeMaxBytes,
      encoding,
      announcedSize,
      signal: this.#signal,
    });
    return this.#sink;
  }

  /** The stored form of a body in memory; `undefined` for a large one, which was staged in it. */
  encode(): EncodedContent<Buffer> | Promise<EncodedContent<Buffer>> | undefined {
    if (!(this.received instanceof GatheredBytes)) return undefined;
    const bytes = this.received.join();
    if (this.body.encoding === 'gzip') return { encoding: 'gzip', bytes };
    return encodeBytes(bytes, this.#context.limits.compressionLevel);
  }

  /** What a large body was staged in, or a sink that holds the stored form of a body in memory. */
  async staged(encoded: EncodedContent<Buffer> | undefined): Promise<ContentSink> {
    const sink = this.#sink ?? this.#openSink(encoded?.encoding ?? 'identity');
    if (encoded !== undefined) await sink.write(encoded.bytes);
    return sink;
  }

  /** Reports what cannot be released. */
  async release(): Promise<void> {
    const { reportProblem } = this.#context;
    if (this.hold !== undefined) {
      await this.hold.release().catch((error: unknown) => reportProblem('Cannot release a blob', error));
    }
    if (this.#sink !== undefined && !this.placed) {
      await this.#sink.discard().catch((error: unknown) => reportProblem('Cannot discard an upload', error));
    }
    this.#passing?.release();
    // Last: it may wait for the next piece of a body that stands still.
    await this.#releaseMemory?.(this.bytesAreUnused);
  }
}
