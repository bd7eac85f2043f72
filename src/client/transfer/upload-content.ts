import { closeSync, createReadStream, openSync, readFileSync, readSync, statSync } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateRawSync } from 'node:zlib';
import { digestOf } from '../../core/digest.ts';
import type { Digest } from '../../core/digest.ts';
import { errnoOf, FiletrackerError } from '../../core/errors.ts';
import { digestingPieces, digestInThread, type FileDigest } from '../../fs/file-digest.ts';
import type { Chunks } from '../../streams/chunks.ts';
import { compressionPays } from '../../streams/compressibility.ts';
import { gzipBytes, gzipChunks } from '../../streams/gzip-encoder.ts';
import type { ProgressListener } from './download.ts';
import { writeAll } from './sink.ts';
import { fromLocalError } from '../local-errors.ts';
import type { UploadContent } from '../http/remote-store.ts';

/** Bodies up to this size are sent without `Expect: 100-continue`, which costs as much as the body. */
const unaskedMaxBytes = 64 * 1024;
/** Files up to this size are read into memory whole: hashing them takes less time than starting a thread. */
const wholeFileMaxBytes = 512 * 1024;
/** First bytes of a file that show whether compression pays. */
const probedSizeBytes = 64 * 1024;
const readSizeBytes = 1024 * 1024;
/** Compressed bytes of one upload that are held in memory; more go into a temporary file. */
const heldMaxBytes = 32 * 1024 * 1024;
/** Source text gets 6% larger than at zlib's default (0.182 against 0.172 of its size) in half of the time. */
const compressionLevel = 4;
/**
 * Largest compression ratio of an upload: servers refuse more than 256 (`--unpack-ratio-max`) as a bomb, and zeros reach
 * 1,032.
 */
const ratioMax = 200;
const packing = { level: compressionLevel, ratioMax };
/** Compression that saves a smaller share is not worth the receiver's time. */
const savingMinShare = 0.03;
/** Samples of a file that show how much compression saves. */
const samples = 32;
const sampleSizeBytes = 8 * 1024;

/** A local file before its upload; it must still be the same afterwards. */
export interface SourceFile {
  readonly path: string;
  readonly size: number;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  readonly ino: bigint;
}

/** @throws FiletrackerError `io` if `path` is no regular file. */
export function sourceFile(path: string): SourceFile {
  try {
    const attributes = statSync(path, { bigint: true });
    if (!attributes.isFile()) {
      const kind = attributes.isDirectory() ? 'it is a folder' : 'it is not a regular file';
      throw new FiletrackerError('io', `Cannot put "${path}": ${kind}`);
    }
    const { size, mtimeNs, ctimeNs, ino } = attributes;
    return { path, size: Number(size), mtimeNs, ctimeNs, ino };
  } catch (error) {
    throw fromLocalError(error, `put "${path}"`);
  }
}

/** @throws FiletrackerError `changed-during-upload`. */
export function requireUnchanged(source: SourceFile): void {
  const now = sourceFile(source.path);
  const same =
    now.size === source.size &&
    now.mtimeNs === source.mtimeNs &&
    now.ctimeNs === source.ctimeNs &&
    now.ino === source.ino;
  if (!same) throw changed(source.path);
}

function changed(path: string): FiletrackerError {
  return new FiletrackerError(
    'changed-during-upload',
    `Cannot put "${path}": it was changed while it was being read; nothing was stored`,
  );
}

/** The error of a file with more or fewer bytes than its size says. */
function wrongSize(source: SourceFile): FiletrackerError {
  const now = sourceFile(source.path);
  // In /proc the mtime of a file is the time of the stat(2).
  const isSame = now.size === source.size && (now.size === 0 || now.mtimeNs === source.mtimeNs);
  if (!isSame) return changed(source.path);
  const state = 'its file system does not report its true size';
  return new FiletrackerError(
    'io',
    `Cannot put "${source.path}": ${state}; pipe it into "filetracker put -"`,
  );
}

/** A blob ready to be sent; disposing of it removes its temporary file. */
export interface PreparedUpload extends AsyncDisposable {
  readonly content: UploadContent;
  /** The same without compression, for a server that refuses the compression ratio. */
  readonly plain?: UploadContent | undefined;
}

export interface PrepareOptions {
  readonly compress: boolean;
  /** Whether the server accepts bodies without a length, and reports before the body whether it has the blob. */
  readonly streams: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

/**
 * Reads a file for its digest, and compresses it if that pays, on all cores, off the main thread: during the upload if
 * the server `streams`, else before. Memory is bounded for every size.
 * @throws FiletrackerError `changed-during-upload`, `io`.
 */
export async function prepareUpload(source: SourceFile, options: PrepareOptions): Promise<PreparedUpload> {
  try {
    return source.size <= wholeFileMaxBytes
      ? await prepareSmall(source, options)
      : await prepareLarge(source, options);
  } catch (error) {
    throw fromLocalError(error, `put "${source.path}"`);
  }
}

const nothingToDispose = { [Symbol.asyncDispose]: (): Promise<void> => Promise.resolve() };

async function prepareSmall(source: SourceFile, { compress }: PrepareOptions): Promise<PreparedUpload> {
  const bytes = readFileSync(source.path);
  if (bytes.length !== source.size) throw wrongSize(source);
  const digest = digestOf(bytes);
  const packed = compress && compressionPays(bytes) ? await gzipBytes(bytes) : bytes;
  const better = packed.length < bytes.length;
  const sent = better ? packed : bytes;
  const encoding = better ? 'gzip' : 'identity';
  const content = { digest, size: bytes.length, encoding, transferSize: sent.length } as const;
  const sending = sent.length <= unaskedMaxBytes ? sent : (): Chunks => onePiece(sent);
  return { content: { ...content, bytes: sending }, ...nothingToDispose };
}

async function prepareLarge(source: SourceFile, options: PrepareOptions): Promise<PreparedUpload> {
  const { path, size } = source;
  const { signal, onProgress } = options;
  const reading = { pieceSizeBytes: readSizeBytes, sizeMaxBytes: size, signal };
  const pays = options.compress && compressionPays(await firstBytes(path));
  let done = 0;
  const onPassed = (bytes: number): void =>
    onProgress?.({ phase: 'reading', done: (done += bytes), total: size });
  if (!pays) {
    return identityUpload(await digestInThread(path, { ...reading, onPassed }), source);
  }
  if (options.streams) {
    const saves = savesEnough(path, size);
    const measure = await digestInThread(path, { ...reading, onPassed });
    return saves ? streamedUpload(measure, source, options) : identityUpload(measure, source);
  }
  const spool = new Spool();
  let measure: FileDigest | undefined;
  try {
    const pieces = digestingPieces(path, { ...reading, onEnd: (end) => (measure = end) });
    const packed = gzipChunks(counted(pieces, 'reading', size, onProgress), packing);
    for await (const piece of packed) await spool.write(piece);
    await spool.end();
  } catch (error) {
    await spool[Symbol.asyncDispose]();
    if (!(error instanceof SpoolFullError)) throw error;
    // No space for the compressed form; the plain one needs none.
    return identityUpload(await digestInThread(path, reading), source);
  }
  if (measure === undefined) throw new Error('a file was read without an end');
  if (measure.sizeBytes === size && spool.sizeBytes <= size * (1 - savingMinShare)) {
    const bytes = (): Chunks => spool.chunks();
    const content = { digest: measure.digest, size, transferSize: spool.sizeBytes, bytes };
    return {
      content: { ...content, encoding: 'gzip' },
      plain: plainContent(measure.digest, source),
      [Symbol.asyncDispose]: () => spool[Symbol.asyncDispose](),
    };
  }
  await spool[Symbol.asyncDispose]();
  return identityUpload(measure, source);
}

async function* onePiece(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}

async function firstBytes(path: string): Promise<Buffer> {
  await using handle = await open(path, 'r');
  const bytes = Buffer.alloc(probedSizeBytes);
  return bytes.subarray(0, (await handle.read(bytes)).bytesRead);
}

function identityUpload({ digest, sizeBytes }: FileDigest, source: SourceFile): PreparedUpload {
  if (sizeBytes !== source.size) throw wrongSize(source);
  return { content: plainContent(digest, source), ...nothingToDispose };
}

function plainContent(digest: Digest, source: SourceFile): UploadContent {
  const { size } = source;
  return { digest, size, encoding: 'identity', transferSize: size, bytes: () => fileChunks(source) };
}

/**
 * A file that is compressed while it is sent, again for each try. To read it a second time costs a tenth of compressing
 * it; 256 MiB of text are stored in half of the time that compressing before sending takes.
 */
function streamedUpload(
  { digest, sizeBytes }: FileDigest,
  source: SourceFile,
  { signal, onProgress }: PrepareOptions,
): PreparedUpload {
  const { size } = source;
  if (sizeBytes !== size) throw wrongSize(source);
  const bytes = (): Chunks =>
    gzipChunks(counted(fileChunks(source, signal), 'sending', size, onProgress), packing);
  const content = { digest, size, encoding: 'gzip', transferSize: undefined, bytes } as const;
  return { content, plain: plainContent(digest, source), ...nothingToDispose };
}

/** Whether compression saves enough, judged by samples from all over the file: 0.1 ms each. */
function savesEnough(path: string, size: number): boolean {
  const sample = Buffer.alloc(sampleSizeBytes);
  let [plainBytes, packedBytes] = [0, 0];
  const descriptor = openSync(path, 'r');
  try {
    for (let index = 0; index < samples; index += 1) {
      const position = Math.floor(((size - sampleSizeBytes) * (index + 0.5)) / samples);
      const piece = sample.subarray(0, readSync(descriptor, sample, 0, sampleSizeBytes, position));
      plainBytes += piece.length;
      packedBytes += deflateRawSync(piece, { level: 1 }).length;
    }
  } finally {
    closeSync(descriptor);
  }
  return packedBytes <= plainBytes * (1 - savingMinShare);
}

/** @throws FiletrackerError `changed-during-upload` if the file has become longer or shorter. */
async function* fileChunks(source: SourceFile, signal?: AbortSignal): AsyncGenerator<Buffer> {
  const stream = createReadStream(source.path, {
    highWaterMark: readSizeBytes,
    ...(signal ? { signal } : {}),
  });
  let sizeBytes = 0;
  try {
    for await (const piece of stream as AsyncIterable<Buffer>) {
      sizeBytes += piece.length;
      if (sizeBytes > source.size) throw changed(source.path);
      yield piece;
    }
  } catch (error) {
    throw fromLocalError(error, `put "${source.path}"`);
  }
  if (sizeBytes < source.size) throw changed(source.path);
}

async function* counted(
  chunks: Chunks,
  phase: 'reading' | 'sending',
  total: number,
  onProgress: ProgressListener | undefined,
): AsyncGenerator<Uint8Array> {
  let done = 0;
  for await (const chunk of chunks) {
    yield chunk;
    done += chunk.length;
    onProgress?.({ phase, done, total });
  }
}

/** Thrown if there is no space for a temporary file. */
class SpoolFullError extends Error {}

/** Bytes to send: in memory while they are few, else in a temporary file that is removed with the spool. */
class Spool implements AsyncDisposable {
  #parts: Buffer[] = [];
  #heldBytes = 0;
  #sizeBytes = 0;
  #folder: string | undefined;
  #handle: FileHandle | undefined;

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  async write(piece: Buffer): Promise<void> {
    this.#parts.push(piece);
    this.#heldBytes += piece.length;
    this.#sizeBytes += piece.length;
    if (this.#heldBytes > heldMaxBytes) await this.#flush();
  }

  /** After the last write. */
  async end(): Promise<void> {
    if (this.#handle !== undefined) await this.#flush();
  }

  async #flush(): Promise<void> {
    try {
      this.#folder ??= await mkdtemp(join(tmpdir(), 'filetracker-'));
      this.#handle ??= await open(join(this.#folder, 'upload'), 'wx+', 0o600);
      const parts = this.#parts.splice(0);
      await writeAll(this.#handle, parts);
      this.#heldBytes = 0;
    } catch (error) {
      if (['ENOSPC', 'EDQUOT', 'EACCES', 'EROFS'].includes(errnoOf(error) ?? '')) throw new SpoolFullError();
      throw error;
    }
  }

  async *chunks(): AsyncGenerator<Uint8Array> {
    if (this.#folder !== undefined)
      yield* createReadStream(join(this.#folder, 'upload'), { highWaterMark: readSizeBytes });
    yield* this.#parts;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const folder = this.#folder;
    this.#parts = [];
    this.#folder = undefined;
    await this.#handle?.close();
    this.#handle = undefined;
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  }
}
