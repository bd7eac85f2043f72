import { join, resolve } from 'node:path';
import { DiskBlobStore } from '../../../blobs/disk/disk-blob-store.ts';
import type { PlacedBlob } from '../../../catalog/catalog.ts';
import { LmdbCatalog } from '../../../catalog/lmdb/lmdb-catalog.ts';
import { isDigest } from '../../../core/digest.ts';
import { cannot } from '../../../core/errors.ts';
import { makeFolderDurably, privateFolderMode } from '../../../fs/folders.ts';
import { inBatches, sideBySide } from '../../../streams/side-by-side.ts';
import { checkAdoptionTarget } from '../../folder-kind.ts';
import { FirstItems, Steps, type Advance, type ProgressListener, type StepReport } from '../../progress.ts';
import { isFolder, namesIn, storeFolders } from '../../store-folders.ts';
import type { PathProblem } from '../migrate.ts';
import { readAdoptionState, writeAdoptionState } from './adoption-state.ts';
import { lookAtLegacyBlob, type LegacyBlob } from './legacy-blobs.ts';
import { legacyLinks, readLegacyLink, type LegacyEntry } from './legacy-links.ts';

/** Blobs per sync of a folder. */
const blobsAtOnce = 256;
const blobBatchesAtOnce = 2;
/** Names that wait for the journal together: two of its groups. */
const namesAtOnce = 1024;

export interface AdoptOptions {
  /**
   * Bytes of large blobs that may be decoded to measure them before the adoption is complete; beyond that the likely size
   * is recorded, until verification has measured it. Unbounded unless given.
   */
  readonly decodedStoredBytesMax?: number | undefined;
  readonly listener?: ProgressListener | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface AdoptionReport {
  readonly source: string;
  readonly store: string;
  readonly steps: readonly StepReport[];
  readonly blobs: number;
  readonly names: number;
  /** Names and blobs that could not be adopted, or are damaged; the first of them. */
  readonly problems: readonly PathProblem[];
  readonly problemCount: number;
}

/**
 * Adopts a folder of the legacy server, version 2, into a store: its blobs by hard links, its names and versions
 * from the symbolic links. The old folder is not changed. A second call knows what was adopted, so an adoption that was
 * killed resumes, and one that is complete adopts what is new.
 *
 * The order makes that safe: the blobs of a folder are linked, their names synced, and only then recorded; names refer to
 * recorded blobs alone.
 * @throws FiletrackerError `not-found` if `source` is not a legacy folder, `store-locked`.
 */
export async function adoptLegacyFolder(
  source: string,
  storeFolder: string,
  options: AdoptOptions = {},
): Promise<AdoptionReport> {
  for (const part of ['links', 'blobs']) {
    if (await isFolder(join(source, part))) continue;
    const state = `it has no folder ${part}/, so it is not a store of filetracker 2`;
    throw cannot('not-found', `adopt "${source}"`, state);
  }
  await checkAdoptionTarget(source, storeFolder);
  await makeFolderDurably(storeFolder, privateFolderMode);
  const blobs = await DiskBlobStore.open(storeFolder);
  const catalog = await LmdbCatalog.open({ folders: storeFolders(storeFolder), placer: blobs });
  const writeState = (complete: boolean): Promise<void> =>
    writeAdoptionState(storeFolder, { format: 1, source: resolve(source), complete, verified: false });
  try {
    if ((await readAdoptionState(storeFolder)) === undefined) await writeState(false);
    const report = await new Adoption(source, catalog, blobs, options).run(storeFolder);
    await writeState(true);
    return report;
  } finally {
    await catalog.close();
    await blobs.close();
  }
}

const noBlobs = { blobs: 0, known: 0, damaged: 0, gone: 0, decoded: 0, unmeasured: 0 };
const noNames = { names: 0, newer: 0, damaged: 0, dangling: 0, refused: 0 };

class Adoption {
  readonly #source: string;
  readonly #catalog: LmdbCatalog;
  readonly #blobs: DiskBlobStore;
  readonly #options: AdoptOptions;
  readonly #problems = new FirstItems<PathProblem>();
  readonly #blobCounts = { ...noBlobs };
  #decodedBytes = 0;

  constructor(source: string, catalog: LmdbCatalog, blobs: DiskBlobStore, options: AdoptOptions) {
    this.#source = source;
    this.#catalog = catalog;
    this.#blobs = blobs;
    this.#options = options;
  }

  async run(store: string): Promise<AdoptionReport> {
    const steps = new Steps(this.#options.listener);
    const blobs = await steps.run(
      'blobs',
      'Linking the blobs',
      (advance) => this.#adoptBlobs(advance),
      (counts) => counts,
    );
    const names = await steps.run(
      'names',
      'Adding the names',
      (advance) => this.#adoptNames(advance),
      (counts) => counts,
    );
    return {
      source: this.#source,
      store,
      steps: steps.reports,
      blobs: blobs.blobs + blobs.known,
      names: names.names + names.damaged,
      problems: this.#problems.items,
      problemCount: this.#problems.count,
    };
  }

  async #adoptBlobs(advance: Advance): Promise<typeof noBlobs> {
    const counts = this.#blobCounts;
    await sideBySide(this.#blobFiles(), blobBatchesAtOnce, async (batch) => {
      this.#options.signal?.throwIfAborted();
      const found = await Promise.all(batch.map((file) => this.#lookAt(file)));
      const fresh = found.filter((blob) => blob !== undefined);
      const keys = await this.#blobs.adopt(fresh.map((blob) => ({ ...blob, encoding: 'gzip' })));
      const placed = fresh.flatMap((blob, at): PlacedBlob[] => {
        const key = keys[at];
        if (key === undefined) return [];
        const { digest, logicalSize, storedSize, damage } = blob;
        return [{ digest, encoding: 'gzip', logicalSize, storedSize, key, damaged: damage !== undefined }];
      });
      await this.#catalog.addBlobs(placed);
      counts.gone += fresh.length - placed.length;
      counts.blobs += placed.length;
      advance(counts.blobs + counts.known);
    });
    return counts;
  }

  async *#blobFiles(): AsyncGenerator<readonly { path: string; name: string }[]> {
    const root = join(this.#source, 'blobs');
    for (const folder of (await namesIn(root)) ?? []) {
      const path = join(root, folder);
      if (!(await isFolder(path))) continue;
      const names = ((await namesIn(path)) ?? []).map((name) => ({ path: join(path, name), name }));
      yield* inBatches(names, blobsAtOnce);
    }
  }

  /** `undefined` if there is nothing to adopt. */
  async #lookAt({ path, name }: { path: string; name: string }): Promise<LegacyBlob | undefined> {
    const counts = this.#blobCounts;
    if (!isDigest(name)) {
      this.#problems.add({ path, reason: 'its name is not a digest' });
      return undefined;
    }
    if ((await this.#catalog.findBlob(name)) !== undefined) {
      counts.known += 1;
      return undefined;
    }
    const blob = await lookAtLegacyBlob(path, name, (storedSize) => {
      const { decodedStoredBytesMax = Number.MAX_SAFE_INTEGER } = this.#options;
      if (this.#decodedBytes + storedSize > decodedStoredBytesMax) return false;
      this.#decodedBytes += storedSize;
      counts.decoded += 1;
      return true;
    });
    if (!blob.measured) counts.unmeasured += 1;
    if (blob.damage !== undefined) {
      counts.damaged += 1;
      this.#problems.add({ path, reason: `the blob is damaged: ${blob.damage}` });
    }
    return blob;
  }

  async #adoptNames(advance: Advance): Promise<typeof noNames> {
    const counts = { ...noNames };
    let done = 0;
    await sideBySide(legacyLinks(join(this.#source, 'links')), namesAtOnce, async (link) => {
      this.#options.signal?.throwIfAborted();
      counts[await this.#add(readLegacyLink(link))] += 1;
      advance((done += 1));
    });
    return counts;
  }

  async #add(entry: LegacyEntry): Promise<keyof typeof noNames> {
    const refuse = (path: string, reason: string): 'refused' => {
      this.#problems.add({ path, reason });
      return 'refused';
    };
    if (entry.kind === 'refused') return refuse(entry.path, entry.reason);
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
        return this.#addDamaged(entry);
      case 'name-conflict':
      case 'precondition-failed':
        return refuse(name, 'it is both a file and a directory in the new store');
      case 'limit-reached':
        return refuse(name, outcome.limit);
    }
  }

  async #addDamaged({
    name,
    version,
    digest,
  }: LegacyEntry & { kind: 'entry' }): Promise<'damaged' | 'dangling'> {
    const blob = await this.#catalog.findBlob(digest);
    if (blob === undefined) {
      this.#problems.add({ path: name, reason: 'the link is dangling: its blob is gone' });
      return 'dangling';
    }
    const { logicalSize, storedSize, encoding } = blob;
    await this.#catalog.addLostEntry({ name, version, digest, logicalSize, storedSize, encoding });
    const reason = 'its blob is damaged: reading it returns an error until it is stored again';
    this.#problems.add({ path: name, reason });
    return 'damaged';
  }
}
