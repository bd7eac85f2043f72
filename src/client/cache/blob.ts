import { closeSync, constants, createReadStream, existsSync, fstatSync, lstatSync, openSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { Readable } from 'node:stream';
import { DigestMeter } from '../../core/digest.ts';
import type { Digest } from '../../core/digest.ts';
import { errnoOf, FiletrackerError } from '../../core/errors.ts';
import { isOwn } from './folders.ts';
import { isSealed } from './layout.ts';
import type { CacheLayout } from './layout.ts';

/** Errnos of a path at which there is no regular file. */
export const noFileErrnos: ReadonlySet<string> = new Set(['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO', 'EISDIR']);

/** Opens a regular file of a cache, never through a link; `undefined` if there is none. */
export function openFile(path: string, access: number = constants.O_RDONLY): number | undefined {
  let descriptor: number;
  try {
    descriptor = openSync(path, access | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (noFileErrnos.has(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
  if (fstatSync(descriptor).isFile()) return descriptor;
  closeSync(descriptor);
  return undefined;
}

let hasDescriptorPaths: boolean | undefined;

/** A path that leads to an open file whatever happens to its name; if /proc is missing, the name. */
export function pathOfDescriptor(descriptor: number, name: string): string {
  hasDescriptorPaths ??= existsSync('/proc/self/fd');
  return hasDescriptorPaths ? `/proc/self/fd/${descriptor}` : name;
}

/**
 * Whether a path is the only name of an open file. If so, no name outside of the cache leads to the file, and writing to
 * it changes no file of the user's that was linked into the cache.
 */
export function isOnlyName(path: string, descriptor: number): boolean {
  const [named, held] = [lstatSync(path, { throwIfNoEntry: false }), fstatSync(descriptor)];
  return named?.nlink === 1 && named.ino === held.ino && named.dev === held.dev;
}

/** The path of a blob; `undefined` unless it is there and sealed. */
export function findBlob(layout: CacheLayout, digest: Digest, sizeBytes: number): string | undefined {
  const path = layout.blob(digest);
  const attributes = lstatSync(path, { throwIfNoEntry: false });
  // An unsealed file stays until it is replaced: another process may be writing it.
  return attributes?.isFile() === true && isSealed(attributes, digest, sizeBytes) ? path : undefined;
}

/** An open and sealed blob. */
export interface OpenBlob extends Disposable {
  readonly descriptor: number;
  readonly path: string;
  readonly attributes: Stats;
}

/** Opens a blob; `undefined` unless it is there and sealed. */
export function openBlob(path: string, digest: Digest, sizeBytes: number): OpenBlob | undefined {
  const descriptor = openFile(path);
  if (descriptor === undefined) return undefined;
  const attributes = fstatSync(descriptor);
  if (isSealed(attributes, digest, sizeBytes)) {
    const close = (): void => closeSync(descriptor);
    return { descriptor, path: pathOfDescriptor(descriptor, path), attributes, [Symbol.dispose]: close };
  }
  closeSync(descriptor);
  return undefined;
}

interface NamedBlob {
  readonly name: string;
  readonly path: string;
  readonly digest: Digest;
  readonly size: number;
}

/**
 * A blob as a stream; `undefined` unless it is there and sealed. The stream of a damaged blob of another user fails at
 * its end, after `onDamaged`.
 */
export function openBlobStream(named: NamedBlob, onDamaged: () => void): Readable | undefined {
  const blob = openBlob(named.path, named.digest, named.size);
  if (blob === undefined) return undefined;
  // The stream closes the descriptor.
  const stream = createReadStream('', { fd: blob.descriptor, highWaterMark: 256 * 1024 });
  if (isOwn(blob.attributes)) return stream;
  const checked = Readable.from(checkedPieces(stream, named, onDamaged), {
    objectMode: false,
    highWaterMark: 256 * 1024,
  });
  return checked.once('close', () => stream.destroy());
}

async function* checkedPieces(
  source: Readable,
  { name, digest }: NamedBlob,
  onDamaged: () => void,
): AsyncGenerator<Buffer> {
  const meter = new DigestMeter();
  for await (const piece of source) {
    meter.update(piece as Buffer);
    yield piece as Buffer;
  }
  if (meter.finish() === digest) return;
  onDamaged();
  const state = 'another user of the cache stored a damaged blob, which was removed; try again';
  throw new FiletrackerError('damaged-blob', `Cannot read "${name}": ${state}`);
}
