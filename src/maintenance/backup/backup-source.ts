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
import { cannot, errnoOf } from '../../core/errors.ts';
import { makeFolderDurably, privateFolderMode } from '../../fs/folders.ts';
import type { StoreFolders } from '../store-folders.ts';

/** Whether the file system of a folder is mounted read-only. */
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
 * Invariant: until it is closed no process removes a blob or a segment, because of the store's retention lock, or because
 * no process can have the store open.
 */
export class BackupSource implements AsyncDisposable {
  readonly index: IndexDatabase;
  readonly #lock: Pick<JournalLock, 'isInPlace'>;
  readonly #release: () => Promise<void>;

  private constructor(
    index: IndexDatabase,
    lock: Pick<JournalLock, 'isInPlace'>,
    release: () => Promise<void>,
  ) {
    this.index = index;
    this.#lock = lock;
    this.#release = release;
  }

  /** Checks that nothing can have been removed until now. @throws FiletrackerError `unavailable`. */
  check(): void {
    if (this.#lock.isInPlace) return;
    const state =
      'the store was moved or replaced, or its lock files were removed, while it was read; run the backup again';
    throw cannot('unavailable', 'back up the store', state);
  }

  /** @throws FiletrackerError `store-locked`, `corrupt-store` if the journal can't be read to its end. */
  static async open(source: StoreFolders, signal?: AbortSignal): Promise<BackupSource> {
    if (await isReadOnly(source.journal)) return this.#openReadOnly(source);
    await settleOffline(source);
    await checkIndexFormat(source.catalog);
    const retained = await retainAll(source.journal, signal);
    return this.#opened(
      () => IndexDatabase.openToRead(source.catalog),
      retained,
      () => retained.release(),
    );
  }

  /** The index can't be updated on this disk: one is built from the journal, elsewhere. */
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
    lock: Pick<JournalLock, 'isInPlace'>,
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

/** If no server runs, updates the index to the journal, as the next start would. */
async function settleOffline(source: StoreFolders): Promise<void> {
  await makeFolderDurably(source.journal, privateFolderMode);
  const lock = await JournalLock.tryAcquire(source.journal);
  if (lock === undefined) return;
  const blobs = await DiskBlobStore.open(source.root);
  const catalog = await LmdbCatalog.open({ folders: source, placer: blobs, lock });
  await catalog.close();
  await blobs.close();
}

/** Refuses a store that a server has open: it may write by another mount, and can't be kept from removing anything. */
async function lockReadOnly({ root, journal }: StoreFolders): Promise<JournalLock> {
  const lock = await JournalLock.tryAcquire(journal, { readOnly: true });
  if (lock !== undefined) return lock;
  const state = 'its file system is read-only, and a server has it open; stop it first';
  throw cannot('store-locked', `back up "${root}"`, state);
}

async function indexOfJournal({ root, journal }: StoreFolders, scratch: string): Promise<IndexDatabase> {
  const placer = await DiskBlobStore.open(root, { readOnly: true });
  const { index, damaged, headless } = await inspectJournal(journal, scratch, { placer });
  if (damaged.length + headless.length === 0) return index;
  await index.close();
  const state =
    'its file system is read-only, and its journal is damaged; copy the folder to another disk, and run ' +
    'filetracker-recover on the copy';
  throw cannot('corrupt-store', `back up "${root}"`, state);
}
