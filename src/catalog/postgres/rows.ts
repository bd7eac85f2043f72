import { digestFromBytes, digestToBytes } from '../../core/digest.ts';
import type { Encoding } from '../../core/blob.ts';
import { FiletrackerError } from '../../core/errors.ts';
import type { FileName } from '../../core/file-name.ts';
import type { Precondition } from '../../core/file-version.ts';
import type { BlobLocation, BlobRecord, Entry, LocatedEntry, PutOutcome, RemoveOutcome } from '../catalog.ts';

/** Numbers that stand for encodings in the tables; never reassigned. */
const encodingNumbers: Readonly<Record<Encoding, number>> = { identity: 0, gzip: 1 };

export function encodingToNumber(encoding: Encoding): number {
  return encodingNumbers[encoding];
}

function encodingFromNumber(number: number): Encoding {
  if (number === encodingNumbers.identity) return 'identity';
  if (number === encodingNumbers.gzip) return 'gzip';
  throw new FiletrackerError('corrupt-store', `Cannot read the catalog: encoding ${number} is not known`);
}

// As rows of pg are: one property a column.

export interface NameRow {
  readonly name: FileName;
  readonly version: number;
}

export interface EntryRow {
  readonly name: string;
  readonly version: number;
  readonly digest: Buffer;
  readonly encoding: number;
  readonly logical_size: number;
  readonly stored_size: number;
}

export interface LocatedRow extends EntryRow {
  readonly bytes: Buffer | null;
  readonly object_key: string | null;
  readonly damaged: boolean;
}

export interface BlobRow {
  readonly digest: Buffer;
  readonly encoding: number;
  readonly logical_size: number;
  readonly stored_size: number;
  readonly object_key: string | null;
  readonly reference_count: number;
  readonly damaged: boolean;
}

export interface PutRow {
  readonly outcome: Exclude<PutOutcome['kind'], 'limit-reached'>;
  readonly stored_version: number;
  readonly other: FileName;
  readonly deduplicated: boolean;
  readonly replaced_key: string | null;
  /** Of a blob that was there before the put, if it is in the blob store. */
  readonly known_key: string | null;
  readonly known_size: number | null;
}

export interface RemoveRow {
  readonly outcome: RemoveOutcome['kind'];
  readonly stored_version: number;
}

export function entryOf(row: EntryRow): Entry {
  return {
    name: row.name as FileName,
    version: row.version,
    digest: digestFromBytes(row.digest),
    logicalSize: row.logical_size,
    storedSize: row.stored_size,
    encoding: encodingFromNumber(row.encoding),
  };
}

export function knownObjectOf({ known_key: key, known_size: storedSize }: PutRow) {
  return key === null || storedSize === null ? undefined : { key, storedSize };
}

/** The bytes came with the row: reading them asks nothing of the database. */
export function locatedEntryOf(row: LocatedRow): LocatedEntry {
  const read = async (): Promise<Buffer | undefined> => {
    if (row.bytes === null || row.bytes.length === row.stored_size) return row.bytes ?? undefined;
    throw new FiletrackerError(
      'damaged-blob',
      `Cannot read "${row.name}": its bytes are not what was stored`,
    );
  };
  const location: BlobLocation =
    row.object_key === null ? { kind: 'inline', read } : { kind: 'object', key: row.object_key };
  return { entry: entryOf(row), location, damaged: row.damaged };
}

export function blobRecordOf(row: BlobRow, read: () => Promise<Buffer | undefined>): BlobRecord {
  return {
    digest: digestFromBytes(row.digest),
    encoding: encodingFromNumber(row.encoding),
    logicalSize: row.logical_size,
    storedSize: row.stored_size,
    location: row.object_key === null ? { kind: 'inline', read } : { kind: 'object', key: row.object_key },
    references: row.reference_count,
    damaged: row.damaged,
  };
}

/** A precondition on the content as the functions of the schema take it: its kind and its digests. */
export function preconditionValues(precondition: Precondition | undefined): [number, Buffer[] | null] {
  if (precondition === undefined || precondition.kind === 'unmodified-since') return [0, null];
  if (precondition.kind === 'absent') return [1, null];
  if (precondition.digests === undefined) return [2, null];
  return [3, precondition.digests.map((digest) => digestToBytes(digest))];
}
