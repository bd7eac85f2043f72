import { digestFromBytes, digestToBytes } from '../../core/digest.ts';
import type { Encoding } from '../../core/blob.ts';
import { cannot } from '../../core/errors.ts';
import type { FileName } from '../../core/file-name.ts';
import type { Precondition } from '../../core/file-version.ts';
import type { BlobRecord, Entry, LocatedEntry, PutOutcome, RemoveOutcome } from '../catalog.ts';

// The rows of the tables and functions as pg returns them, one property for each column.

export interface NameRow {
  readonly name: FileName;
  readonly version: number;
}

interface BlobColumns {
  readonly digest: Buffer;
  readonly encoding: number;
  readonly logical_size: number;
  readonly stored_size: number;
}

export interface EntryRow extends NameRow, BlobColumns {}

export interface LocatedRow extends EntryRow {
  readonly bytes: Buffer | null;
  readonly object_key: string | null;
  readonly damaged: boolean;
}

export interface BlobRow extends BlobColumns {
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
  /** Of a blob that was stored before the put, if it is in the blob store. */
  readonly known_key: string | null;
  readonly known_size: number | null;
}

export interface RemoveRow {
  readonly outcome: RemoveOutcome['kind'];
  readonly stored_version: number;
}

/** Numbers of the encodings in the tables; never reassigned. */
const encodingNumbers: Readonly<Record<Encoding, number>> = { identity: 0, gzip: 1 };

export function encodingToNumber(encoding: Encoding): number {
  return encodingNumbers[encoding];
}

function encodingFromNumber(number: number): Encoding {
  if (number === encodingNumbers.identity) return 'identity';
  if (number === encodingNumbers.gzip) return 'gzip';
  throw cannot('corrupt-store', 'read the catalog', `encoding ${number} is unknown`);
}

function blobOf(row: BlobColumns) {
  return {
    digest: digestFromBytes(row.digest),
    encoding: encodingFromNumber(row.encoding),
    logicalSize: row.logical_size,
    storedSize: row.stored_size,
  };
}

export function entryOf(row: EntryRow): Entry {
  return { name: row.name, version: row.version, ...blobOf(row) };
}

/** The location of a blob; `read` returns its bytes if they are in the database. */
function locationOf(key: string | null, read: () => Promise<Buffer | undefined>) {
  return key === null ? ({ kind: 'inline', read } as const) : ({ kind: 'object', key } as const);
}

/** The bytes of a blob, checked by their size. @throws FiletrackerError `damaged-blob`. */
export function checkedBytes(bytes: Buffer | null | undefined, storedSize: number): Buffer | undefined {
  if (bytes === null || bytes === undefined || bytes.length === storedSize) return bytes ?? undefined;
  throw cannot(
    'damaged-blob',
    'read a blob',
    'its bytes in the database are damaged; run filetracker-recover',
  );
}

/** The bytes came with the row: reading them needs no query. */
export function locatedEntryOf(row: LocatedRow): LocatedEntry {
  const location = locationOf(row.object_key, async () => checkedBytes(row.bytes, row.stored_size));
  return { entry: entryOf(row), location, damaged: row.damaged };
}

export function blobRecordOf(row: BlobRow, read: () => Promise<Buffer | undefined>): BlobRecord {
  const { reference_count: references, damaged } = row;
  return { ...blobOf(row), location: locationOf(row.object_key, read), references, damaged };
}

export function knownObjectOf({ known_key: key, known_size: storedSize }: PutRow) {
  return key === null || storedSize === null ? undefined : { key, storedSize };
}

/** A precondition on the digest as the functions of the schema take it: its kind and its digests. */
export function preconditionValues(precondition: Precondition | undefined): [number, Buffer[] | null] {
  if (precondition === undefined || precondition.kind === 'unmodified-since') return [0, null];
  if (precondition.kind === 'absent') return [1, null];
  if (precondition.digests === undefined) return [2, null];
  return [3, precondition.digests.map((digest) => digestToBytes(digest))];
}
