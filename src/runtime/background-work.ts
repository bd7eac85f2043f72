import type { Logger } from 'pino';
import type { BlobStore } from '../blobs/blob-store.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { LmdbCatalog } from '../catalog/lmdb/lmdb-catalog.ts';
import { systemClock } from '../core/clock.ts';
import { readAdoptionState, writeAdoptionState } from '../maintenance/migration/legacy/adoption-state.ts';
import { Verification, type VerificationCounters, type VerificationStatus } from '../store/verification.ts';
import { countStrays } from '../store/strays.ts';

export interface BackgroundSettings {
  readonly verifyIntervalMs?: number | undefined;
  readonly verifyBytesPerSecond?: number | undefined;
}

const defaultBytesPerSecond = 32 * 1024 ** 2;
const straysLeft = 'there are contents that nothing names; filetracker-recover takes them away';

/**
 * What goes on beside serving, but for collection: verification, on request in any process and on schedule in
 * the one that leads; the check of what was adopted; the look for strays after a crash.
 */
export class BackgroundWork {
  readonly #settings: BackgroundSettings;
  readonly #folder: string;
  readonly #blobs: BlobStore;
  readonly #logger: Logger;
  readonly #counters: VerificationCounters | undefined;
  readonly #stopping = new AbortController();
  #verification: Verification | undefined;
  #looking: Promise<void> | undefined;

  constructor(parts: {
    readonly settings: BackgroundSettings;
    readonly folder: string;
    readonly blobs: BlobStore;
    readonly logger: Logger;
    readonly counters?: VerificationCounters | undefined;
  }) {
    this.#settings = parts.settings;
    this.#folder = parts.folder;
    this.#blobs = parts.blobs;
    this.#logger = parts.logger;
    this.#counters = parts.counters;
  }

  /** The verification of this process. */
  verificationOf(catalog: Catalog): Verification {
    this.#verification ??= new Verification({
      folder: this.#folder,
      catalog,
      blobs: this.#blobs,
      bytesPerSecond: this.#settings.verifyBytesPerSecond ?? defaultBytesPerSecond,
      counters: this.#counters,
      onFinished: (status) => this.#finished(status),
      reportProblem: (problem, error) => this.#logger.error({ err: error }, problem),
    });
    return this.#verification;
  }

  /** Takes on what one process does for all. */
  async lead(catalog: Catalog, embedded: LmdbCatalog | undefined): Promise<void> {
    const { verifyIntervalMs } = this.#settings;
    const verification = this.verificationOf(catalog);
    const adoption = await readAdoptionState(this.#folder);
    if (verifyIntervalMs !== undefined) verification.schedule(verifyIntervalMs);
    else if (adoption?.verified === false) await verification.start();
    const replay = embedded?.replay;
    if (replay !== undefined && (replay.rebuilt || replay.records > 0))
      this.#looking = this.#lookForStrays(catalog);
  }

  /** Idempotent. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#verification?.stop();
    await this.#looking;
  }

  async #lookForStrays(catalog: Catalog): Promise<void> {
    try {
      const { signal } = this.#stopping;
      const strays = await countStrays(catalog, this.#blobs, { beforeMs: systemClock.nowMs(), signal });
      if (strays > 0) this.#logger.warn({ strays }, straysLeft);
    } catch (error) {
      if (!this.#stopping.signal.aborted)
        this.#logger.error({ err: error }, 'Cannot look for stray contents');
    }
  }

  async #finished(status: VerificationStatus): Promise<void> {
    const { after: _after, ...told } = status;
    if (status.damagedBlobs > 0) this.#logger.error(told, 'the store was verified: contents are damaged');
    else if (status.strays > 0)
      this.#logger.warn(told, `the store was verified: all is right, but ${straysLeft}`);
    else this.#logger.info(told, 'the store was verified: all is right');
    const adoption = await readAdoptionState(this.#folder);
    if (adoption?.complete === true && !adoption.verified) {
      await writeAdoptionState(this.#folder, { ...adoption, verified: true });
    }
  }
}
