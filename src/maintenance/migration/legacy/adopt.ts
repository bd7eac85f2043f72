import { readdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { DiskBlobStore } from '../../../blobs/disk/disk-blob-store.ts';
import type { PlacedBlob } from '../../../catalog/catalog.ts';
import { LmdbCatalog } from '../../../catalog/lmdb/lmdb-catalog.ts';
import { isDigest } from '../../../core/digest.ts';
import { FiletrackerError, fromSystemError } from '../../../core/errors.ts';
import { reportItemsMax } from '../../../core/limits.ts';
import { makeFolderDurably, privateFolderMode } from '../../../fs/folders.ts';
import { Steps, type ProgressListener, type StepReport } from '../../progress.ts';
import { inBatches, sideBySide } from '../../../streams/side-by-side.ts';
import { isFolder, storeFolders } from '../../backup/store-folders.ts';
import { checkAdoptionTarget } from '../../folder-kind.ts';
import { readAdoptionState, writeAdoptionState } from './adoption-state.ts';
import { lookAtLegacyBlob, type LegacyBlob } from './legacy-blobs.ts';
import { legacyLinks, readLegacyLink, type LegacyEntry } from './legacy-links.ts';

/** One sync of a folder for so many blobs. */
const blobsAtOnce = 256;
const blobBatchesAtOnce = 2;
/** So many names wait for the journal together: two of its groups. */
const namesAtOnce = 1024;

export interface AdoptOptions {
  /**
   * Bytes of large blobs that may be decoded for their size before the adoption is complete; beyond it the likely
   * size is taken, until verification has measured it. Unbounded unless given.
   */
  readonly decodedStoredBytesMax?: number | undefined;
  readonly listener?: ProgressListener | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface AdoptionProblem {
  readonly path: string;
  readonly reason: string;
}

export interface AdoptionReport {
  readonly source: string;
  readonly store: string;
  readonly steps: readonly StepReport[];
  readonly blobs: number;
  readonly names: number;
  /** Names and blobs that could not be taken over, or that are damaged; the first of them. */
  readonly problems: readonly AdoptionProblem[];
  readonly problemCount: number;
}

/**
 * Takes a folder of the legacy server, version 2, over into a store of ours: its blobs by hard links, its names and
 * versions from the symbolic links. Of the old folder nothing is changed. What was taken over is known
 * at the next call, so an adoption that was killed goes on; one that is complete takes over what is new.
 *
 * The order makes that safe: the blobs of a folder are linked, their names synced, and only then recorded; names
 * refer to recorded blobs alone.
 * @throws FiletrackerError `not-found` where `source` is no legacy folder, `store-locked`.
 */
export async function adoptLegacyFolder(
  source: string,
  storeFolder: string,
  options: AdoptOptions = {},
): Promise<AdoptionReport> {
  for (const part of ['links', 'blobs']) {
    if (await isFolder(join(source, part))) continue;
    throw new FiletrackerError(
      'not-found',
      `Cannot adopt "${source}": it has no folder ${part}/, so it is no store of filetracker 2`,
    );
  }
  await checkAdoptionTarget(source, storeFolder);
  await makeFolderDurably(storeFolder, privateFolderMode);
  const blobs = await DiskBlobStore.open(storeFolder);
  const { journal, catalog: catalogFolder } = storeFolders(storeFolder);
  const catalog = await LmdbCatalog.open({ folders: { journal, catalog: catalogFolder }, placer: blobs });
  try {
    const before = await readAdoptionState(storeFolder);
    if (before === undefined) {
      await writeAdoptionState(storeFolder, {
        format: 1,
        source: resolve(source),
        complete: false,
        verified: false,
      });
    }
    const adoption = new Adoption(source, { catalog, blobs }, options);
    const report = await adoption.run(storeFolder);
    await writeAdoptionState(storeFolder, {
      format: 1,
      source: resolve(source),
      complete: true,
      verified: false,
    });
    return report;
  } finally {
    await catalog.close();
    await blobs.close();
  }
}

class Adoption {
  readonly #source: string;
  readonly #catalog: LmdbCatalog;
  readonly #blobs: DiskBlobStore;
  readonly #options: AdoptOptions;
  readonly #steps: Steps;
  readonly #problems: AdoptionProblem[] = [];
  #problemCount = 0;
  #decodedBytes = 0;

  constructor(
    source: string,
    parts: { readonly catalog: LmdbCatalog; readonly blobs: DiskBlobStore },
    options: AdoptOptions,
  ) {
    this.#source = source;
    this.#catalog = parts.catalog;
    this.#blobs = parts.blobs;
    this.#options = options;
    this.#steps = new Steps(options.listener);
  }

  async run(store: string): Promise<AdoptionReport> {
    const blobs = await this.#steps.run('blobs', 'Linking the blobs', (advance) => this.#takeBlobs(advance));
    const names = await this.#steps.run('names', 'Entering the names', (advance) => this.#takeNames(advance));
    return {
      source: this.#source,
      store,
      steps: this.#steps.reports,
      blobs,
      names,
      problems: this.#problems,
      problemCount: this.#problemCount,
    };
  }

  async #takeBlobs(
    advance: (done: number) => void,
  ): Promise<{ counts: Record<string, number>; result: number }> {
    const counts = { blobs: 0, known: 0, damaged: 0, gone: 0, decoded: 0, unmeasured: 0 };
    await sideBySide(this.#blobFiles(), blobBatchesAtOnce, async (batch) => {
      this.#options.signal?.throwIfAborted();
      const found = await Promise.all(batch.map((file) => this.#lookAt(file, counts)));
      const fresh = found.filter((blob) => blob !== undefined);
      const keys = await this.#blobs.adopt(fresh.map((blob) => ({ ...blob, encoding: 'gzip' })));
      const placed = fresh.flatMap((blob, at): PlacedBlob[] => {
        const key = keys[at];
        const { digest, logicalSize, storedSize, damage } = blob;
        if (key === undefined) counts.gone += 1;
        if (key === undefined) return [];
        return [{ digest, encoding: 'gzip', logicalSize, storedSize, key, damaged: damage !== undefined }];
      });
      await this.#catalog.addBlobs(placed);
      counts.blobs += placed.length;
      advance(counts.blobs + counts.known);
    });
    return { counts, result: counts.blobs + counts.known };
  }

  async *#blobFiles(): AsyncGenerator<readonly { path: string; name: string }[]> {
    const root = join(this.#source, 'blobs');
    for (const folder of await list(root)) {
      const path = join(root, folder);
      if (!(await isFolder(path))) continue;
      const names = (await list(path)).map((name) => ({ path: join(path, name), name }));
      yield* inBatches(names, blobsAtOnce);
    }
  }

  async #lookAt(
    file: { path: string; name: string },
    counts: { known: number; damaged: number; decoded: number; unmeasured: number },
  ): Promise<LegacyBlob | undefined> {
    const { path, name } = file;
    if (!isDigest(name)) {
      this.#problem(path, 'its name is no digest');
      return undefined;
    }
    const known = await this.#catalog.findBlob(name);
    if (known !== undefined) {
      counts.known += 1;
      return undefined;
    }
    const blob = await lookAtLegacyBlob(path, name, (storedSize) => {
      const allowed =
        this.#decodedBytes + storedSize <= (this.#options.decodedStoredBytesMax ?? Number.MAX_SAFE_INTEGER);
      if (allowed) this.#decodedBytes += storedSize;
      counts.decoded += allowed ? 1 : 0;
      return allowed;
    });
    if (!blob.measured) counts.unmeasured += 1;
    if (blob.damage !== undefined) {
      counts.damaged += 1;
      this.#problem(path, `the blob is damaged: ${blob.damage}`);
    }
    return blob;
  }

  async #takeNames(
    advance: (done: number) => void,
  ): Promise<{ counts: Record<string, number>; result: number }> {
    const counts = { names: 0, newer: 0, damaged: 0, dangling: 0, refused: 0 };
    let done = 0;
    await sideBySide(legacyLinks(join(this.#source, 'links')), namesAtOnce, async (link) => {
      this.#options.signal?.throwIfAborted();
      const entry = readLegacyLink(link);
      counts[await this.#enter(entry)] += 1;
      done += 1;
      advance(done);
    });
    return { counts, result: counts.names + counts.damaged };
  }

  async #enter(entry: LegacyEntry): Promise<'names' | 'newer' | 'damaged' | 'dangling' | 'refused'> {
    if (entry.kind === 'refused') {
      this.#problem(entry.path, entry.reason);
      return 'refused';
    }
    const { name, version, digest } = entry;
    const sizes = { logicalSize: 0, storedSize: 0, encoding: 'gzip' } as const;
    const content = { kind: 'stored' } as const;
    const outcome = await this.#catalog.put({ name, version, digest, ...sizes, content });
    switch (outcome.kind) {
      case 'stored':
        return 'names';
      case 'superseded':
        return 'newer';
      case 'content-missing':
        break;
      case 'name-conflict':
      case 'precondition-failed':
        this.#problem(name, 'it is a file here, and a folder of files as well');
        return 'refused';
      case 'limit-reached':
        this.#problem(name, outcome.limit);
        return 'refused';
    }
    const blob = await this.#catalog.findBlob(digest);
    if (blob === undefined) {
      this.#problem(name, 'the link leads nowhere: its blob is gone');
      return 'dangling';
    }
    const { logicalSize, storedSize, encoding } = blob;
    await this.#catalog.addLostEntry({ name, version, digest, logicalSize, storedSize, encoding });
    this.#problem(name, 'its blob is damaged: reading it answers an error until it is stored again');
    return 'damaged';
  }

  #problem(path: string, reason: string): void {
    this.#problemCount += 1;
    if (this.#problems.length < reportItemsMax) this.#problems.push({ path, reason });
  }
}

async function list(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    throw fromSystemError(error, 'read the old store');
  }
}
