import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, fromSystemError } from '../../../core/errors.ts';
import { checkStoredFormat } from '../../../core/release.ts';
import { writeFileDurably } from '../../../fs/durable-file.ts';

// `adoption.json` in the store that a legacy folder was adopted into: how far that got, so that it goes on
// after a crash, and that it is not begun again.

export interface AdoptionState {
  readonly format: 1;
  /** The legacy folder. */
  readonly source: string;
  /** Whether all its names are in the catalog. */
  readonly complete: boolean;
  /** Whether all blobs were read and checked since. */
  readonly verified: boolean;
}

const fileName = 'adoption.json';

/**
 * Undefined where nothing was adopted, or the adoption was killed before it could say so.
 * @throws FiletrackerError `corrupt-store` for a newer format.
 */
export async function readAdoptionState(storeFolder: string): Promise<AdoptionState | undefined> {
  try {
    const content: unknown = JSON.parse(await readFile(join(storeFolder, fileName), 'utf8'));
    checkStoredFormat(fileName, content, [1]);
    const state = (content ?? {}) as Partial<AdoptionState>;
    if (state.format !== 1 || typeof state.source !== 'string') return undefined;
    return {
      format: 1,
      source: state.source,
      complete: state.complete === true,
      verified: state.verified === true,
    };
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || error instanceof SyntaxError) return undefined;
    throw fromSystemError(error, 'read how far the adoption has come');
  }
}

export async function writeAdoptionState(storeFolder: string, state: AdoptionState): Promise<void> {
  await writeFileDurably(join(storeFolder, fileName), Buffer.from(`${JSON.stringify(state)}\n`));
}
