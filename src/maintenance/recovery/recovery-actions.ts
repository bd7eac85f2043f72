import { segmentFileName } from '../../catalog/journal/segment-header.ts';
import { reportItemsMax } from '../../core/limits.ts';
import { damagedSegments, type Survey } from './recovery-repair.ts';
import type { RecoveryAction } from './recovery-report.ts';
import type { CatalogState } from './recovery-survey.ts';

const catalogReasons: Readonly<Record<Exclude<CatalogState, 'sound'>, string>> = {
  absent: 'there is none',
  'not-trusted': 'it was not closed before the system went down',
  unreadable: 'it cannot be read',
  'behind-journal': 'it ends before the journal does',
  'ahead-of-journal': 'the journal has lost its end',
  differs: 'it says other things than the journal',
};

/** What has to be done about a survey; nothing where the store is as it should be. */
export function actionsFor(survey: Survey): { actions: RecoveryAction[]; actionCount: number } {
  const actions: RecoveryAction[] = [];
  let actionCount = 0;
  for (const action of allActions(survey)) {
    actionCount += 1;
    if (actions.length < reportItemsMax) actions.push(action);
  }
  return { actions, actionCount };
}

function* allActions(survey: Survey): Iterable<RecoveryAction> {
  const { inspection, catalog, blobs } = survey;
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
    const reason = `${inspection.tornBytes} bytes after its end are of a write that was cut short`;
    yield { action: 'cut-journal', target: segmentFileName(inspection.end.segment), reason };
  }
  for (const { name, version } of catalog.lostRemovals) {
    const reason = 'the journal has lost the record of its removal';
    yield { action: 'restore-removal', target: `${name}@${version}`, reason };
  }
  for (const { entry, content } of catalog.lostRecords) {
    const action = content === undefined ? 'enter-lost-file' : 'restore-entry';
    const reason = 'the journal has lost its record';
    yield { action, target: `${entry.name}@${entry.version}`, reason };
  }
  for (const { digest, replacedKey } of blobs.mendable) {
    yield { action: 'mend-blob', target: digest, reason: 'its content is there and sound' };
    if (replacedKey === undefined) continue;
    yield {
      action: 'quarantine-blob',
      target: replacedKey,
      reason: 'the same content lies elsewhere, sound',
    };
  }
  for (const { digest, key, reason, known } of blobs.bad) {
    if (!known) yield { action: 'mark-damaged', target: digest, reason };
    if (key !== undefined) yield { action: 'quarantine-blob', target: key, reason };
  }
  for (const stray of survey.strays.found) {
    yield { action: 'quarantine-stray', target: stray, reason: 'nothing in the catalog names it' };
  }
  for (const upload of survey.uploads) {
    yield { action: 'remove-upload', target: upload, reason: 'it was never finished' };
  }
}

/** What is lost, or may be, without a file that stands for it. */
export function notesFor({ inspection, catalog, blobs, strays }: Survey): string[] {
  const notes = [...strays.notes];
  for (const range of inspection.damaged) {
    const { segment, start, end } = range;
    const place = `${segmentFileName(segment)}, bytes ${start} to ${end}`;
    notes.push(
      catalog.untold.includes(range)
        ? `Changes recorded in ${place} are lost, unless what is left of the catalog or a later record tells of them`
        : `Changes recorded in ${place} cannot be read; the catalog tells of them`,
    );
  }
  for (const { digest, errno } of blobs.unreadable.slice(0, reportItemsMax)) {
    notes.push(`The content ${digest} cannot be read and was left as it is: the disk answered with ${errno}`);
  }
  for (const name of catalog.returned.slice(0, reportItemsMax)) {
    notes.push(`The removal of "${name}" is lost: the file is there again`);
  }
  return notes;
}
