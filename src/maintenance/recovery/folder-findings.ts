import { segmentFileName } from '../../catalog/journal/segment-header.ts';
import { reportItemsMax } from '../../core/limits.ts';
import type { CatalogState } from './catalog-survey.ts';
import { damagedSegments, type Survey } from './repair-folder.ts';

/** Something that recovery repairs, or would repair. */
export interface RepairAction {
  readonly action:
    | 'rebuild-catalog'
    | 'retire-segment'
    | 'cut-journal'
    | 'restore-entry'
    | 'restore-removal'
    | 'enter-lost-file'
    | 'mark-damaged'
    | 'mend-blob'
    | 'quarantine-blob'
    | 'quarantine-stray'
    | 'remove-upload';
  /** A name, a digest, or a file of the store. */
  readonly target: string;
  readonly reason: string;
}

const catalogReasons: Readonly<Record<Exclude<CatalogState, 'sound'>, string>> = {
  absent: 'it does not exist',
  'not-trusted': 'it was not closed before the system went down',
  unreadable: 'it cannot be read',
  'behind-journal': 'it ends before the journal does',
  'ahead-of-journal': 'the journal has lost its end',
  differs: 'it differs from the journal',
};

/** The repairs to make; none if the store is intact. */
export function* actionsFor({
  inspection,
  catalog,
  blobs,
  orphans,
  uploads,
}: Survey): Iterable<RepairAction> {
  if (catalog.state !== 'sound') {
    yield { action: 'rebuild-catalog', target: 'catalog', reason: catalogReasons[catalog.state] };
  }
  for (const segment of damagedSegments(inspection)) {
    const ranges = inspection.damaged.filter((range) => range.segment === segment);
    const bytes = ranges.map(({ start, end }) => `${start} to ${end}`).join(', ');
    const reason = bytes === '' ? 'its header is damaged' : `bytes ${bytes} are damaged`;
    yield { action: 'retire-segment', target: segmentFileName(segment), reason };
  }
  if (inspection.tornBytes > 0) {
    const reason = `${inspection.tornBytes} bytes after its end belong to an interrupted write`;
    yield { action: 'cut-journal', target: segmentFileName(inspection.end.segment), reason };
  }
  for (const { name, version } of catalog.lostRemovals) {
    const reason = 'the journal has lost the record of its removal';
    yield { action: 'restore-removal', target: `${name}@${version}`, reason };
  }
  for (const { entry, blob } of catalog.lostRecords) {
    const action = blob === undefined ? 'enter-lost-file' : 'restore-entry';
    yield { action, target: `${entry.name}@${entry.version}`, reason: 'the journal has lost its record' };
  }
  for (const { digest, replacedKey } of blobs.repairable) {
    yield { action: 'mend-blob', target: digest, reason: 'its bytes exist and are intact' };
    if (replacedKey === undefined) continue;
    yield { action: 'quarantine-blob', target: replacedKey, reason: 'the blob is intact elsewhere' };
  }
  for (const { digest, key, reason, known } of blobs.bad) {
    if (!known) yield { action: 'mark-damaged', target: digest, reason };
    if (key !== undefined) yield { action: 'quarantine-blob', target: key, reason };
  }
  for (const target of orphans.found) {
    yield { action: 'quarantine-stray', target, reason: 'the catalog does not name it' };
  }
  for (const target of uploads) yield { action: 'remove-upload', target, reason: 'it was never finished' };
}

/** Losses, certain or possible, that no file in the report shows. */
export function notesFor({ inspection, catalog, blobs, orphans }: Survey): string[] {
  const journalNotes = inspection.damaged.map((range) => {
    const place = `${segmentFileName(range.segment)}, bytes ${range.start} to ${range.end}`;
    return catalog.unknown.includes(range)
      ? `Changes recorded in ${place} are lost, unless the rest of the catalog or a later record has them`
      : `Changes recorded in ${place} cannot be read; the catalog has them`;
  });
  const blobNotes = blobs.unreadable
    .slice(0, reportItemsMax)
    .map(
      ({ digest, errno }) => `Blob ${digest} cannot be read and was left as it is: the disk reports ${errno}`,
    );
  const returned = catalog.returned
    .slice(0, reportItemsMax)
    .map((name) => `The removal of "${name}" is lost: the file is there again`);
  return [...orphans.notes, ...journalNotes, ...blobNotes, ...returned];
}
