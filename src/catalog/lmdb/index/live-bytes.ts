import { recordHeaderSizeBytes } from '../../journal/record.ts';
import type { BlobRow } from './rows.ts';

// The live bytes of a segment are what the records take that compaction writes in its place, without the up to 7 bytes
// that pad each of them. Each row of the index accounts for its part of a record: an entry or a removal for the header and
// the name, a blob for its bytes or its key, and for a header too if no entry is stored by the same record.

/** Of an entry or a removal. */
export function liveBytesOfName(key: Buffer): number {
  return recordHeaderSizeBytes + key.length;
}

/** Of the record that last marked a blob as damaged or intact. */
export const liveBytesOfMark = recordHeaderSizeBytes;

/** In the segment of the row, without its mark. */
export function liveBytesOfBlob({ place, storedSize, counted, alone }: BlobRow): number {
  const header = alone ? recordHeaderSizeBytes : 0;
  switch (place.kind) {
    case 'journal':
      return header + storedSize;
    case 'object':
      return counted ? header + place.key.length : 0;
    case 'lost':
      return 0;
  }
}
