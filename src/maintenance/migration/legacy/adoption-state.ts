import { join } from 'node:path';
import { writeFileDurably } from '../../../fs/durable-file.ts';
import { readStateFile } from '../../store-folders.ts';

// `adoption.json` in the store that a legacy folder was adopted into records the progress of the adoption, so that it
// resumes after a crash, and does not start again once it is complete.

export interface AdoptionState {
  readonly format: 1;
  /** The legacy folder. */
  readonly source: string;
  /** Whether all its names are in the catalog. */
  readonly complete: boolean;
  /** Whether all blobs have been read and checked since. */
  readonly verified: boolean;
}

const fileName = 'adoption.json';

/**
 * `undefined` if nothing was adopted, or the adoption was killed before it wrote its state.
 * @throws FiletrackerError `corrupt-store` for a newer format.
 */
export async function readAdoptionState(storeFolder: string): Promise<AdoptionState | undefined> {
  const state = (await readStateFile(join(storeFolder, fileName))) as
    Partial<AdoptionState> | null | undefined;
  if (state?.format !== 1 || typeof state.source !== 'string') return undefined;
  const { source, complete, verified } = state;
  return { format: 1, source, complete: complete === true, verified: verified === true };
}

export async function writeAdoptionState(storeFolder: string, state: AdoptionState): Promise<void> {
  await writeFileDurably(join(storeFolder, fileName), Buffer.from(`${JSON.stringify(state)}\n`));
}
