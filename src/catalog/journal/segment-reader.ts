import { close, fstat, open, read } from 'node:fs';
import { LRUCache } from 'lru-cache';
import { crc32 } from 'node:zlib';
import { cannot, errnoOf, fromSystemError } from '../../core/errors.ts';
import { segmentPath } from './segment-header.ts';

const openSegmentsMax = 128;

/** An open segment. It is closed once it has left the cache and has no readers. */
interface OpenSegment {
  readonly descriptor: Promise<number | undefined>;
  readers: number;
  evicted: boolean;
}

/**
 * Reads inline bytes from journal segments.
 *
 * Invariant: a segment's bytes never change once written, so an open descriptor returns the right bytes even after
 * compaction has removed the file. If the file is gone before it was opened, the result is `undefined`, and the caller
 * looks up the new position. A descriptor is closed only when `readers` is zero.
 */
export class SegmentReader {
  readonly #folder: string;
  readonly #segments: LRUCache<number, OpenSegment>;

  constructor(folder: string) {
    this.#folder = folder;
    this.#segments = new LRUCache({
      max: openSegmentsMax,
      dispose: (segment) => {
        segment.evicted = true;
        closeIfUnused(segment);
      },
    });
  }

  /**
   * Reads `length` bytes at `offset` of a segment and checks them; `undefined` if the segment is gone.
   * @throws FiletrackerError `damaged-blob` if the bytes are not those that were written.
   */
  async read(number: number, offset: number, length: number, crc: number): Promise<Buffer | undefined> {
    const segment = this.#open(number);
    segment.readers += 1;
    try {
      const descriptor = await segment.descriptor;
      if (descriptor === undefined) {
        this.#segments.delete(number);
        return undefined;
      }
      const bytes = await readAt(descriptor, offset, length);
      if (bytes.length === length && crc32(bytes) === crc) return bytes;
      throw cannot('damaged-blob', 'read the blob', 'its bytes in the journal are damaged');
    } finally {
      segment.readers -= 1;
      closeIfUnused(segment);
    }
  }

  close(): void {
    this.#segments.clear();
  }

  #open(number: number): OpenSegment {
    const known = this.#segments.get(number);
    if (known !== undefined) return known;
    const segment = {
      descriptor: openSegment(segmentPath(this.#folder, number)),
      readers: 0,
      evicted: false,
    };
    this.#dropRemoved();
    this.#segments.set(number, segment);
    // The reader gets the failure; the next reader tries again.
    segment.descriptor.catch(() => this.#segments.delete(number));
    return segment;
  }

  /** Closes segments that compaction has removed, which would keep their space on the disk; runs at each opening. */
  #dropRemoved(): void {
    for (const [number, segment] of this.#segments.entries()) {
      const dropIfRemoved = (descriptor: number | undefined): void => {
        if (descriptor === undefined) return;
        fstat(descriptor, (error, stats) => {
          if (error !== null || stats.nlink > 0) return;
          if (this.#segments.peek(number) === segment) this.#segments.delete(number);
        });
      };
      segment.descriptor.then(dropIfRemoved, () => undefined);
    }
  }
}

function closeIfUnused(segment: OpenSegment): void {
  if (!segment.evicted || segment.readers > 0) return;
  segment.descriptor.then(
    (descriptor) => {
      // Close once; a failure to close a read-only descriptor loses nothing.
      if (descriptor !== undefined && segment.readers === 0 && segment.evicted) {
        segment.evicted = false;
        close(descriptor, () => undefined);
      }
    },
    () => undefined,
  );
}

function openSegment(path: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    open(path, 'r', (error, descriptor) => {
      if (error === null) resolve(descriptor);
      else if (errnoOf(error) === 'ENOENT') resolve(undefined);
      else reject(fromSystemError(error, 'open a segment of the journal'));
    });
  });
}

/** The bytes at `offset`; fewer if the file ends. The callback form costs half of a FileHandle's read. */
function readAt(descriptor: number, offset: number, length: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    if (length === 0) {
      resolve(Buffer.alloc(0));
      return;
    }
    const bytes = Buffer.allocUnsafeSlow(length);
    read(descriptor, bytes, 0, length, offset, (error, bytesRead) => {
      if (error === null) resolve(bytesRead === length ? bytes : bytes.subarray(0, bytesRead));
      else reject(fromSystemError(error, 'read a segment of the journal'));
    });
  });
}
