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
import { writeAll } from './download.ts';
import type { ProgressListener } from './download.ts';
import { fromLocalError } from '../local-errors.ts';
import type { UploadContent } from '../http/remote-store.ts';

/** Contents up to this size are sent without asking first: to ask costs as much as to send. */
const unaskedMaxBytes = 64 * 1024;
/** Files up to this size are read into memory whole: to digest them there takes less than to start a thread. */
const wholeFileMaxBytes = 512 * 1024;
/** The beginning of a file by which one can tell whether compression pays. */
const probedSizeBytes = 64 * 1024;
const readSizeBytes = 1024 * 1024;
/** Compressed bytes of one upload that are held in memory; more go through a temporary file. */
const heldMaxBytes = 32 * 1024 * 1024;
/** Source text gets 6% larger than at zlib's default (0.182 against 0.172 of its size) and takes half of the time. */
const compressionLevel = 4;
/**
 * Most bytes of content that one compressed byte may stand for: servers take what unpacks to more than 256 times its
 * size (`--unpack-ratio-max`) for a bomb, and zeros reach 1,032.
 */
const ratioMax = 200;
const packing = { level: compressionLevel, ratioMax };
/** Compression that saves less than this share is not worth the receiver's time. */
const savingMinShare = 0.03;
/** Pieces of a file by which one can tell what compression saves. */
const samples = 32;
const sampleSizeBytes = 8 * 1024;

/** A local file as it was when it was looked at: what must still hold when it has been sent. */
export interface SourceFile {
  readonly path: string;
  readonly size: number;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  readonly inode: bigint;
}

/** Looks at a file that shall be put. @throws FiletrackerError `io` where it is no regular file that can be read. */
export function sourceFile(path: string): SourceFile {
  try {
    const attributes = statSync(path, { bigint: true });
    if (!attributes.isFile()) {
      const kind = attributes.isDirectory() ? 'it is a folder' : 'it is no regular file';
      throw new FiletrackerError('io', `Cannot put "${path}": ${kind}`);
    }
    const { size, mtimeNs, ctimeNs, ino: inode } = attributes;
    return { path, size: Number(size), mtimeNs, ctimeNs, inode };
  } catch (error) {
    throw fromLocalError(error, `put "${path}"`);
  }
}

/** @throws FiletrackerError `changed-during-upload` where the file is not what it was. */
export function requireUnchanged(source: SourceFile): void {
  const now = sourceFile(source.path);
  const same =
    now.size === source.size &&
    now.mtimeNs === source.mtimeNs &&
    now.ctimeNs === source.ctimeNs &&
    now.inode === source.inode;
  if (!same) throw changed(source.path);
}

function changed(path: string): FiletrackerError {
  return new FiletrackerError(
    'changed-during-upload',
    `Cannot put "${path}": it was changed while it was being read; nothing was stored`,
  );
}

/** Why a file gave more or fewer bytes than its size says. */
function wrongSize(source: SourceFile): FiletrackerError {
  const now = sourceFile(source.path);
  // In /proc the time of a file is that of the last look at it.
  const isSame = now.size === source.size && (now.size === 0 || now.mtimeNs === source.mtimeNs);
  if (!isSame) return changed(source.path);
  const state = 'its file system does not say its true size';
  return new FiletrackerError(
    'io',
    `Cannot put "${source.path}": ${state}; pipe it into "filetracker put -"`,
  );
}

/** A content ready to be sent, and what must be thrown away afterwards. */
export interface PreparedUpload extends AsyncDisposable {
  readonly content: UploadContent;
  /** The same as it is, for a receiver that refuses a large content for how well it was compressed. */
  readonly plain?: UploadContent | undefined;
}

export interface PrepareOptions {
  readonly compress: boolean;
  /** Whether the receiver takes bodies without a length, and says beforehand whether it has the content already. */
  readonly streams: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ProgressListener | undefined;
}

/**
 * Reads a file for its digest, and sees to its compressed form where that pays, which is made on all cores off the
 * main thread: while it is sent, for who can be asked first, else now. Memory is bounded whatever the size.
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
  // A small file costs more to hand to another thread than to read.
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
    // No room for the compressed form: the plain one is in its file already.
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

/** The beginning of a file, by which one can tell whether compression pays. */
async function firstBytes(path: string): Promise<Buffer> {
  await using handle = await open(path, 'r');
  const bytes = Buffer.alloc(probedSizeBytes);
  return bytes.subarray(0, (await handle.read(bytes)).bytesRead);
}

/** @throws FiletrackerError `changed-during-upload` where what was read is more or less than there was. */
function identityUpload({ digest, sizeBytes }: FileDigest, source: SourceFile): PreparedUpload {
  if (sizeBytes !== source.size) throw wrongSize(source);
  return { content: plainContent(digest, source), ...nothingToDispose };
}

function plainContent(digest: Digest, source: SourceFile): UploadContent {
  const { size } = source;
  return { digest, size, encoding: 'identity', transferSize: size, bytes: () => fileChunks(source) };
}

/**
 * A file that is compressed while it is sent, again for each try. Reading it a second time takes a tenth of what
 * compressing takes; 256 MiB of text are stored in half of the time that it takes when the one follows the other.
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

/** Whether compression saves what it must, as samples from all over a file tell: 0.1 ms each. */
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

/** The bytes of a file. @throws FiletrackerError `changed-during-upload` where they are more or fewer than they were. */
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

/** Thrown where there is no room for a temporary file. */
class SpoolFullError extends Error {}

/** Bytes kept for being sent, in memory while they are few, else in a temporary file that goes with the spool. */
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

  /** No more is written; what was begun in a file is ended there. */
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
