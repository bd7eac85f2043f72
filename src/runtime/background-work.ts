import type { Logger } from 'pino';
import type { BlobStore } from '../blobs/blob-store.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { LmdbCatalog } from '../catalog/lmdb/lmdb-catalog.ts';
import { systemClock } from '../core/clock.ts';
import { readAdoptionState, writeAdoptionState } from '../maintenance/migration/legacy/adoption-state.ts';
import { Verification, type VerificationCounters, type VerificationStatus } from '../store/verification.ts';
import { countOrphans } from '../store/integrity.ts';

export interface BackgroundOptions {
  readonly folder: string;
  readonly blobs: BlobStore;
  readonly logger: Logger;
  readonly counters: VerificationCounters | undefined;
  /** On request only unless given. */
  readonly verifyIntervalMs: number | undefined;
  readonly verifyBytesPerSecond: number;
}

const orphansLeft = 'there are orphans; filetracker-recover moves them away';

/**
 * The work beside serving, except for garbage collection: verification, on request in any process and on schedule in
 * the leader; the check of an adopted store; the search for orphans after a crash.
 */
export class BackgroundWork {
  readonly #options: BackgroundOptions;
  readonly #stopping = new AbortController();
  #verification: Verification | undefined;
  #searching: Promise<void> | undefined;

  constructor(options: BackgroundOptions) {
    this.#options = options;
  }

  /** The verification of this process. */
  verificationOf(catalog: Catalog): Verification {
    const { folder, blobs, verifyBytesPerSecond, counters, logger } = this.#options;
    this.#verification ??= new Verification({
      folder,
      catalog,
      blobs,
      bytesPerSecond: verifyBytesPerSecond,
      counters,
      onFinished: (status) => this.#finished(status),
      reportProblem: (problem, error) => logger.error({ err: error }, problem),
    });
    return this.#verification;
  }

  /** Begins the work that one process does for all. */
  async lead(catalog: Catalog, embedded: LmdbCatalog | undefined): Promise<void> {
    const { folder, verifyIntervalMs } = this.#options;
    const verification = this.verificationOf(catalog);
    const adoption = await readAdoptionState(folder);
    if (verifyIntervalMs !== undefined) verification.schedule(verifyIntervalMs);
    else if (adoption?.verified === false) await verification.start();
    const replay = embedded?.replay;
    if (replay !== undefined && (replay.rebuilt || replay.records > 0))
      this.#searching = this.#searchOrphans(catalog);
  }

  /** Idempotent. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#verification?.stop();
    await this.#searching;
  }

  async #searchOrphans(catalog: Catalog): Promise<void> {
    const { blobs, logger } = this.#options;
    const { signal } = this.#stopping;
    try {
      const strays = await countOrphans(catalog, blobs, { beforeMs: systemClock.nowMs(), signal });
      if (strays > 0) logger.warn({ strays }, orphansLeft);
    } catch (error) {
      if (!signal.aborted) logger.error({ err: error }, 'Cannot search for orphans');
    }
  }

  async #finished(status: VerificationStatus): Promise<void> {
    const { folder, logger } = this.#options;
    const { after: _after, ...result } = status;
    if (status.damagedBlobs > 0) logger.error(result, 'verification finished: blobs are damaged');
    else if (status.strays > 0)
      logger.warn(result, `verification finished: all blobs are intact, but ${orphansLeft}`);
    else logger.info(result, 'verification finished: all blobs are intact');
    const adoption = await readAdoptionState(folder);
    if (adoption?.complete === true && !adoption.verified) {
      await writeAdoptionState(folder, { ...adoption, verified: true });
    }
  }
}
