import type { BlobRecord, PlacedBlob } from '../../catalog/catalog.ts';
import type { LmdbReader } from '../../catalog/lmdb/index/lmdb-reader.ts';
import type { Digest } from '../../core/digest.ts';
import { checkBlob, type BlobVerdict, type CheckOptions } from '../../store/integrity.ts';
import { checkBlobs, checkSize } from './blob-checks.ts';
import type { BlobPlace } from './blob-place.ts';

const looksAtOnce = 64;
const readsAtOnce = 4;

/** A blob whose bytes are gone or damaged. */
export interface BadBlob {
  readonly digest: Digest;
  /** Where the damaged bytes are stored, if they exist. */
  readonly key: string | undefined;
  readonly reason: string;
  /** Whether the catalog marks it as damaged already. */
  readonly known: boolean;
}

/** A blob that the disk cannot read. It may be intact, so it stays as it is. */
export interface UnreadableBlob {
  readonly digest: Digest;
  readonly errno: string;
}

/** Intact bytes of a blob that the catalog marks as damaged, describes wrongly, or expects under another key. */
export interface RepairableBlob extends PlacedBlob {
  /** Whether the catalog takes the bytes under its own key for intact, and has to mark them first. */
  readonly mustMark: boolean;
  /** The catalog's own key, if it is another and has damaged bytes. */
  readonly replacedKey: string | undefined;
}

export interface BlobSurvey {
  readonly checked: number;
  readonly readBytes: number;
  readonly bad: readonly BadBlob[];
  readonly unreadable: readonly UnreadableBlob[];
  readonly repairable: readonly RepairableBlob[];
}

/** Checks that each blob exists in its size; `full` reads it and checks its digest. */
export async function surveyBlobs(
  reader: LmdbReader,
  place: BlobPlace,
  options: { full: boolean; signal: AbortSignal | undefined; advance: (checked: number) => void },
): Promise<BlobSurvey> {
  const { full, signal, advance } = options;
  const bad: BadBlob[] = [];
  const unreadable: UnreadableBlob[] = [];
  const repairable: RepairableBlob[] = [];
  let readBytes = 0;
  const onBytes = (bytes: number): void => {
    readBytes += bytes;
  };
  const check = async (record: BlobRecord): Promise<void> => {
    const { location, digest, encoding, logicalSize } = record;
    const key = location.kind === 'object' ? location.key : undefined;
    if (key !== undefined) place.checkKey(key);
    const verdict = await verdictOn(record, place, full ? { signal, onBytes } : undefined);
    if (verdict.kind !== 'intact') {
      const reason = verdict.kind === 'missing' ? 'its file is gone' : verdict.reason;
      const found = await repairableOrBad(record, key, reason);
      if ('reason' in found) bad.push(found);
      else repairable.push(found);
    } else if (key !== undefined && verdict.logicalSize !== logicalSize) {
      const { kind: _kind, ...sizes } = verdict;
      repairable.push({ digest, encoding, ...sizes, key, mustMark: false, replacedKey: undefined });
    }
  };
  const repairableOrBad = async (
    record: BlobRecord,
    key: string | undefined,
    reason: string,
  ): Promise<BadBlob | RepairableBlob> => {
    const { digest, damaged: known } = record;
    const intact = await place.findIntact(record, key, reader);
    const exists = key !== undefined && (await place.blobs.size(key)) !== undefined;
    if (intact === undefined) return { digest, key: exists ? key : undefined, reason, known };
    const elsewhere = intact.key !== key;
    return { ...intact, mustMark: elsewhere && !known, replacedKey: elsewhere && exists ? key : undefined };
  };
  const checked = await checkBlobs(reader, {
    atOnce: full ? readsAtOnce : looksAtOnce,
    check,
    onUnreadable: ({ digest }, errno) => unreadable.push({ digest, errno }),
    advance,
    signal,
  });
  return { checked, readBytes, bad, unreadable, repairable };
}

/** @param reading if given, the bytes are read and checked too. */
async function verdictOn(
  record: BlobRecord,
  { blobs }: BlobPlace,
  reading: CheckOptions | undefined,
): Promise<BlobVerdict> {
  if (record.damaged) return { kind: 'damaged', reason: 'it is marked as damaged' };
  const verdict = await checkSize(record, blobs);
  return verdict.kind === 'intact' && reading !== undefined ? checkBlob(record, blobs, reading) : verdict;
}
