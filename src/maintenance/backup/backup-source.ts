import { access, constants, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DiskBlobStore } from '../../blobs/disk/disk-blob-store.ts';
import { IndexDatabase } from '../../catalog/lmdb/index/database.ts';
import { checkIndexFormat } from '../../catalog/lmdb/index/state.ts';
import { inspectJournal } from '../../catalog/lmdb/inspection.ts';
import { JournalLock } from '../../catalog/lmdb/writer/journal-lock.ts';
import { LmdbCatalog } from '../../catalog/lmdb/lmdb-catalog.ts';
import { retainAll } from '../../catalog/lmdb/writer/retention.ts';
import { errnoOf, FiletrackerError } from '../../core/errors.ts';
import { makeFolderDurably, privateFolderMode } from '../../fs/folders.ts';
import type { StoreFolders } from './store-folders.ts';

/** A lock that is held. */
type Held = Pick<JournalLock, 'isInPlace'>;

/** Whether nobody can write to a folder here, as its file system is mounted read-only. */
export async function isReadOnly(folder: string): Promise<boolean> {
  try {
    await access(folder, constants.W_OK);
    return false;
  } catch (error) {
    return errnoOf(error) === 'EROFS';
  }
}

/**
 * A store that a backup reads.
 *
 * Invariant: until it is given back no process removes a blob or a segment, by the store's retention lock, or because
 * nobody can have the store open.
 */
export class BackupSource implements AsyncDisposable {
  readonly index: IndexDatabase;
  readonly #lock: Held;
  readonly #release: () => Promise<void>;

  private constructor(index: IndexDatabase, lock: Held, release: () => Promise<void>) {
    this.index = index;
    this.#lock = lock;
    this.#release = release;
  }

  /** Sees to it that nothing can have been removed until now. @throws FiletrackerError `unavailable`. */
  check(): void {
    if (this.#lock.isInPlace) return;
    const state = 'the store was moved, replaced, or robbed of its lock files, while it was read';
    throw new FiletrackerError('unavailable', `Cannot back up the store: ${state}; run the backup again`);
  }

  /** @throws FiletrackerError `store-locked`, `corrupt-store` where the journal can't be read to its end. */
  static async open(source: StoreFolders, signal?: AbortSignal): Promise<BackupSource> {
    return (await isReadOnly(source.journal))
      ? this.#openReadOnly(source)
      : this.#openInPlace(source, signal);
  }

  static async #openInPlace(source: StoreFolders, signal: AbortSignal | undefined): Promise<BackupSource> {
    await settleOffline(source);
    await checkIndexFormat(source.catalog);
    const retained = await retainAll(source.journal, signal);
    return this.#opened(
      () => IndexDatabase.openToRead(source.catalog),
      retained,
      () => retained.release(),
    );
  }

  /** What lies in `catalog/` can't be brought up to the journal here: an index is made from the journal, elsewhere. */
  static async #openReadOnly(source: StoreFolders): Promise<BackupSource> {
    const lock = await lockReadOnly(source);
    const scratch = await mkdtemp(join(tmpdir(), 'filetracker-backup-'));
    return this.#opened(
      () => indexOfJournal(source, scratch),
      lock,
      async () => {
        await rm(scratch, { recursive: true, force: true });
        await lock.release();
      },
    );
  }

  static async #opened(
    open: () => Promise<IndexDatabase>,
    lock: Held,
    release: () => Promise<void>,
  ): Promise<BackupSource> {
    try {
      return new BackupSource(await open(), lock, release);
    } catch (error) {
      await release();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.index.close();
    } finally {
      await this.#release();
    }
  }
}

/** Where no server runs, brings the index up to the journal, as the next start would. */
async function settleOffline(source: StoreFolders): Promise<void> {
  await makeFolderDurably(source.journal, privateFolderMode);
  const lock = await JournalLock.tryAcquire(source.journal);
  if (lock === undefined) return;
  const blobs = await DiskBlobStore.open(source.root);
  const catalog = await LmdbCatalog.open({ folders: source, placer: blobs, lock });
  await catalog.close();
  await blobs.close();
}

const readOnlyState = 'its file system is read-only';

/**
 * Sees to it that no server has the store open, which might write by another mount: it can't be told, here, to keep
 * what it has.
 */
async function lockReadOnly({ root, journal }: StoreFolders): Promise<JournalLock> {
  const lock = await JournalLock.tryAcquire(journal, { readOnly: true });
  if (lock !== undefined) return lock;
  const state = `${readOnlyState}, and a server has it open; stop it first`;
  throw new FiletrackerError('store-locked', `Cannot back up "${root}": ${state}`);
}

async function indexOfJournal({ root, journal }: StoreFolders, scratch: string): Promise<IndexDatabase> {
  const placer = await DiskBlobStore.open(root, { readOnly: true });
  const { index, damaged, headless } = await inspectJournal(journal, scratch, { placer });
  if (damaged.length + headless.length === 0) return index;
  await index.close();
  const state = `${readOnlyState}, and its journal is damaged`;
  const remedy = 'copy the folder to another disk, and run filetracker-recover on the copy';
  throw new FiletrackerError('corrupt-store', `Cannot back up "${root}": ${state}; ${remedy}`);
}
