import type { BlobStore } from '../../blobs/blob-store.ts';
import type { BlobRecord } from '../../catalog/catalog.ts';
import type { PostgresCatalog } from '../../catalog/postgres/postgres-catalog.ts';
import type { TableRepairs } from '../../catalog/postgres/repair.ts';
import { reportItemsMax, stagedLifetimeMs } from '../../core/limits.ts';
import { checkBlob } from '../../store/integrity.ts';
import { inBatches } from '../../streams/side-by-side.ts';
import type { Advance, Steps } from '../progress.ts';
import { checkBlobs, checkSize } from './blob-checks.ts';
import { looksLikeOthers, refuseEmptyPlace } from './bucket-blobs.ts';
import {
  Findings,
  recover,
  type Decision,
  type RecoverableStore,
  type Recovery,
  type RecoveryOptions,
} from './recover.ts';

export interface RecoverDatabaseOptions extends RecoveryOptions {
  /**
   * Continue if the journal was shortened and files are lost with its records, and if the objects look like those of
   * another store.
   */
  readonly acceptLoss?: boolean | undefined;
  /** Younger orphans stay: an upload may be about to be named. */
  readonly orphanAgeMs?: number | undefined;
}

export interface BadBlob {
  readonly digest: string;
  readonly reason: string;
  readonly references: number;
}

export interface DatabaseDetails {
  readonly tables: TableRepairs;
  /** Blobs that are gone or damaged; marked, so that a PUT stores them again. */
  readonly damaged: readonly BadBlob[];
  /** Blobs that the disk cannot read; they may be intact, and stay as they are. */
  readonly unreadable: readonly BadBlob[];
  /** Blobs that were marked as damaged and are intact; the mark is removed. */
  readonly sound: number;
  /** Orphans that were removed. */
  readonly strays: number;
  /** Orphans that were kept, because they outnumber the objects that rows name. */
  readonly straysLeft: number;
}

const blobsAtOnce = 32;
const orphansAtOnce = 500;

/**
 * Checks and repairs a store in PostgreSQL: the tables against each other, rows without objects, objects without rows.
 * Servers may continue; changes wait while the tables are compared.
 * @throws FiletrackerError `corrupt-store` if losses have to be accepted first.
 */
export function recoverDatabase(
  catalog: PostgresCatalog,
  blobs: BlobStore,
  options: RecoverDatabaseOptions = {},
): Promise<Recovery<DatabaseDetails>> {
  return recover(new DatabaseStore(catalog, blobs, options), options);
}

class DatabaseStore implements RecoverableStore<DatabaseDetails, DatabaseDetails> {
  readonly #catalog: PostgresCatalog;
  readonly #blobs: BlobStore;
  readonly #options: RecoverDatabaseOptions;
  readonly #dryRun: boolean;

  constructor(catalog: PostgresCatalog, blobs: BlobStore, options: RecoverDatabaseOptions) {
    this.#catalog = catalog;
    this.#blobs = blobs;
    this.#options = options;
    this.#dryRun = options.dryRun ?? false;
  }

  async survey(steps: Steps): Promise<DatabaseDetails> {
    await this.#checkAddress();
    const tables = await steps.run(
      'tables',
      'Comparing the tables',
      () => this.#catalog.repair({ dryRun: this.#dryRun, acceptLoss: this.#options.acceptLoss }),
      ({ entriesWithoutBlob, sumsCorrected, journalShortened, ...counts }) => ({
        ...counts,
        entriesWithoutBlob: entriesWithoutBlob.length,
        sumsCorrected: Number(sumsCorrected),
        journalShortened: Number(journalShortened),
      }),
    );
    const checked = await steps.run(
      'contents',
      'Checking the blobs',
      (advance) => this.#checkBlobs(advance),
      ({ damaged, sound }) => ({ damaged: damaged.length, sound }),
    );
    const { objects: _objects, ...orphans } = await steps.run(
      'objects',
      'Looking for orphans',
      (advance) => this.#removeOrphans(advance),
      (counts) => counts,
    );
    return { tables, ...checked, ...orphans };
  }

  decide(details: DatabaseDetails): Decision<DatabaseDetails> {
    const { tables, damaged, unreadable } = details;
    const findings = new Findings();
    findings.add('warning', warningsFor(details));
    findings.add('repair', repairsOf(details));
    findings.add(
      'lost-file',
      tables.entriesWithoutBlob.map(({ name, version }) => `${name}@${version}`),
    );
    findings.add('lost-blob', damaged.map(lineOf));
    findings.add('unreadable-blob', unreadable.map(lineOf));
    const lost =
      damaged.length + unreadable.length + tables.entriesWithoutBlob.length + tables.referencesLost;
    return { details, findings, hasLosses: lost > 0 };
  }

  /** Keeps a wrong address of the objects from marking every blob as damaged. */
  async #checkAddress(): Promise<void> {
    const { acceptLoss } = this.#options;
    if (acceptLoss === true) return;
    for await (const _ of this.#blobs.list()) return;
    let named = 0;
    for await (const batch of this.#catalog.listBlobs()) {
      named += batch.filter(({ location, damaged }) => location.kind === 'object' && !damaged).length;
    }
    refuseEmptyPlace(named, acceptLoss);
  }

  async #checkBlobs(advance: Advance): Promise<Pick<DatabaseDetails, 'damaged' | 'unreadable' | 'sound'>> {
    const { full = false, signal } = this.#options;
    const damaged: BadBlob[] = [];
    const unreadable: BadBlob[] = [];
    let sound = 0;
    const total = (await this.#catalog.stats()).blobs;
    const note = (list: BadBlob[], { digest, references }: BlobRecord, reason: string): void => {
      if (list.length < reportItemsMax) list.push({ digest, reason, references });
    };
    const check = async (record: BlobRecord): Promise<void> => {
      // A small blob that is marked is read again: its row may have no bytes.
      const readsAll = full || (record.damaged && record.location.kind === 'inline');
      const blobs = this.#blobs;
      const verdict = await (readsAll ? checkBlob(record, blobs, { signal }) : checkSize(record, blobs));
      if (verdict.kind === 'intact') {
        // Only a blob that was read from end to end loses its mark.
        if (!record.damaged || !readsAll) return;
        sound += 1;
        if (!this.#dryRun) await this.#catalog.markDamaged(record.digest, false);
        return;
      }
      // It may have been collected, or replaced by intact bytes, since it was listed.
      const now = await this.#catalog.findBlob(record.digest);
      if (now === undefined || keyOf(now) !== keyOf(record)) return;
      note(damaged, record, verdict.kind === 'missing' ? 'its file is gone' : verdict.reason);
      if (!this.#dryRun && !now.damaged) await this.#catalog.markDamaged(record.digest, true);
    };
    await checkBlobs(this.#catalog, {
      atOnce: blobsAtOnce,
      check,
      onUnreadable: (record, errno) =>
        note(unreadable, record, `it was left as it is: the disk reports ${errno}`),
      advance: (checked) => advance(checked, total),
      signal,
    });
    return { damaged, unreadable, sound };
  }

  async #removeOrphans(
    advance: Advance,
  ): Promise<Pick<DatabaseDetails, 'strays' | 'straysLeft'> & { objects: number }> {
    let objects = 0;
    let orphans = 0;
    for await (const { seen, unnamed } of this.#orphans()) {
      orphans += unnamed.length;
      advance((objects += seen));
    }
    if (looksLikeOthers(orphans, objects - orphans, this.#options.acceptLoss)) {
      return { objects, strays: 0, straysLeft: orphans };
    }
    if (this.#dryRun) return { objects, strays: orphans, straysLeft: 0 };
    // The second look decides: what a row names by now stays.
    let strays = 0;
    for await (const { unnamed } of this.#orphans()) {
      strays += (await this.#catalog.objects.removeOrphans(unnamed)).length;
    }
    return { objects, strays, straysLeft: 0 };
  }

  /** Objects that no row names and that are old enough, batch by batch; `seen` counts the others too. */
  async *#orphans(): AsyncGenerator<
    { readonly seen: number; readonly unnamed: readonly string[] },
    void,
    void
  > {
    const { signal, orphanAgeMs = stagedLifetimeMs } = this.#options;
    const beforeMs = Date.now() - orphanAgeMs;
    for await (const batch of inBatches(this.#blobs.list(signal && { signal }), orphansAtOnce)) {
      const old = batch.filter(({ modifiedMs }) => modifiedMs < beforeMs).map(({ key }) => key);
      yield { seen: batch.length, unnamed: await this.#catalog.objects.findOrphans(old) };
    }
  }
}

function keyOf({ location }: BlobRecord): string | undefined {
  return location.kind === 'object' ? location.key : undefined;
}

function lineOf({ digest, reason, references }: BadBlob): string {
  return `${digest}: ${reason}; ${references} files`;
}

function repairsOf({ tables, sound, strays }: DatabaseDetails): string[] {
  const counted: readonly (readonly [number, string])[] = [
    [tables.entriesRestored, 'restore # files from the journal'],
    [tables.entriesCorrected, 'correct # files that differ from the journal'],
    [tables.entriesRemoved, 'remove # files that the journal records as removed'],
    [tables.removalsRestored, 'restore # removals from the journal'],
    [tables.blobsRestored, 'restore # rows of blobs from the journal'],
    [tables.entriesRecorded, 'record # files that the journal does not know'],
    [tables.countsCorrected, 'correct # counts of references'],
    [tables.unreferencedCorrected, 'correct # rows of unreferenced blobs'],
    [tables.keysCorrected, 'correct # rows of objects'],
    [Number(tables.sumsCorrected), 'correct the sums'],
    [sound, 'remove the mark from # blobs that are intact'],
    [strays, 'remove # objects that no row names'],
  ];
  return counted.flatMap(([number, text]) => (number > 0 ? [text.replace('#', `${number}`)] : []));
}

function warningsFor({ tables, straysLeft }: DatabaseDetails): string[] {
  const warnings: string[] = [];
  if (tables.journalShortened) {
    warnings.push(
      'records were deleted from the journal by something other than the servers; the names of files that only they held are unknown',
    );
    if (tables.referencesLost > 0)
      warnings.push(`at least ${tables.referencesLost} files are lost with them`);
  }
  if (straysLeft > 0) {
    warnings.push(
      `${straysLeft} objects that no row names were kept, because they outnumber those that rows name; if this is ` +
        'the right database for them, and not an older one, --accept-loss removes them',
    );
  }
  return warnings;
}
