import { Readable } from 'node:stream';
import { errnoOf, FiletrackerError } from '../../core/errors.ts';
import { cancellableStream } from './cancellable-stream.ts';
import { receiveSmall, SinkError, verifiedChunks, writeChunks } from './download.ts';
import type { FetchRequest, Fetcher, FetcherParts, Found } from './fetcher.ts';
import { handOutBytes, setVersion } from '../cache/materialize.ts';
import type { LocalCache } from '../cache/local-cache.ts';
import type { CachedFile } from '../cache/names.ts';
import { fromLocalError } from '../local-errors.ts';
import type { RemoteContent } from '../http/remote-store.ts';
import { PartialFile } from './partial-file.ts';

/** How often a cached content may be evicted or damaged between being found and being handed out. */
const findingsMax = 3;

/** Brings what a fetcher finds to where the user wants it. */
export class Delivery {
  readonly #parts: FetcherParts;
  readonly #fetcher: Fetcher;

  constructor(parts: FetcherParts, fetcher: Fetcher) {
    this.#parts = parts;
    this.#fetcher = fetcher;
  }

  /**
   * Makes a file appear at `target`, whole and verified or not at all, and gives what it is.
   * @throws FiletrackerError, also about the target.
   */
  async toFile(
    request: FetchRequest,
    target: string,
  ): Promise<{ readonly found: Found; readonly size: number }> {
    for (let findings = 1; ; findings += 1) {
      const found = await this.#fetcher.find(request);
      if (found.kind === 'remote')
        return { found, size: await this.#download(request, found.content, target) };
      if (await this.#handOut(found.file, target, found.bytes)) return { found, size: found.file.size };
      if (findings === findingsMax) {
        throw new FiletrackerError(
          'busy',
          `Cannot get "${request.name}": its content in the cache keeps changing`,
        );
      }
    }
  }

  async #handOut(file: CachedFile, target: string, bytes: Buffer | undefined): Promise<boolean> {
    const { cache } = this.#parts;
    if (cache === undefined) return false;
    try {
      return await cache.handOut(file, target, { bytes });
    } catch (error) {
      if (errnoOf(error) !== 'ENOSPC') throw fromLocalError(error, `write "${target}"`);
    }
    return await this.#handOutOnFullDisk(cache, file, target);
  }

  /** Where the cache is on the disk that is full, it gives way: other contents first, then this one itself. */
  async #handOutOnFullDisk(cache: LocalCache, file: CachedFile, target: string): Promise<boolean> {
    try {
      using _lock = await cache.lockContent(file.digest);
      if (cache.sharesDiskWith(target)) await cache.space.freeDisk(file.size);
      return await cache.handOut(file, target);
    } catch (error) {
      if (errnoOf(error) === 'ENOSPC' && cache.giveAway(file, target)) return true;
      throw fromLocalError(error, `write "${target}"`);
    }
  }

  /** Downloads straight to the target. */
  async #download(request: FetchRequest, content: RemoteContent, target: string): Promise<number> {
    const { remote } = this.#parts;
    if (remote === undefined) throw new Error('a remote content without a remote store');
    const options = this.#fetcher.downloadOptions(request);
    const { version } = content.file;
    try {
      const small = await receiveSmall(remote, content, options);
      if (small !== undefined) {
        const size = small.bytes.length;
        handOutBytes(small.bytes, version, target);
        request.onProgress?.({ phase: 'fetching', done: size, total: size });
        return size;
      }
      let size = 0;
      const onEnd = ({ sizeBytes }: { readonly sizeBytes: number }): void => void (size = sizeBytes);
      using partial = await PartialFile.beside(target);
      await writeChunks(partial.ownPath, verifiedChunks(remote, content, { ...options, onEnd }));
      setVersion(partial.ownPath, version);
      partial.publish(target);
      return size;
    } catch (error) {
      content.cancel();
      throw fromLocalError(error instanceof SinkError ? error.cause : error, `write "${target}"`);
    }
  }

  /** A file as a stream that fails rather than ends if it is not whole and right. */
  async toStream(request: FetchRequest): Promise<{ readonly found: Found; readonly stream: Readable }> {
    const { cache, remote } = this.#parts;
    const action = `get "${request.name}"`;
    for (let findings = 1; ; findings += 1) {
      const found = await this.#fetcher.find(request);
      if (found.kind === 'remote') {
        if (remote === undefined) throw new Error('a remote content without a remote store');
        const chunks = verifiedChunks(remote, found.content, this.#fetcher.downloadOptions(request));
        const stream = Readable.from(chunks, { objectMode: false, highWaterMark: 256 * 1024 });
        stream.once('close', () => found.content.cancel());
        return { found, stream: cancellableStream(stream, action, request.signal) };
      }
      const stream = await cache?.openStream(found.file);
      if (stream !== undefined) return { found, stream: cancellableStream(stream, action, request.signal) };
      if (findings === findingsMax) throw this.#fetcher.absent(request);
    }
  }
}
