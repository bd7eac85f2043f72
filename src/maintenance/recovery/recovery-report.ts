import type { FileName } from '../../core/file-name.ts';
import type { StepReport } from '../progress.ts';

/** Something that recovery does, or would do. */
export interface RecoveryAction {
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
  /** What it is done to: a name, a digest, a file of the store. */
  readonly target: string;
  readonly reason: string;
}

/** A file whose content is not there or not right: reading it answers an error. */
export interface DamagedFile {
  readonly name: FileName;
  readonly version: number;
  readonly digest: string;
  readonly logicalSize: number;
}

export interface RecoveryReport {
  readonly store: string;
  readonly dryRun: boolean;
  readonly full: boolean;
  readonly steps: readonly StepReport[];
  /** How many things were done, or would be; 0 where the store is as it should be. */
  readonly actionCount: number;
  /** The first of them. */
  readonly actions: readonly RecoveryAction[];
  readonly entries: number;
  readonly damagedFileCount: number;
  /** The first of them. */
  readonly damagedFiles: readonly DamagedFile[];
  /** Files whose content the disk does not give; nothing was done about it, as it may be right. */
  readonly unreadableFileCount: number;
  /** The first of them. */
  readonly unreadableFiles: readonly DamagedFile[];
  /** Whether records could not be read that nothing else tells of: files may be lost that cannot be named. */
  readonly changesMayBeMissing: boolean;
  /** What is known to be lost though no file stands for it any more: versions, removals. */
  readonly notes: readonly string[];
  /** Where damaged things were put, if there were any. */
  readonly quarantine: string | undefined;
}
