import { randomBytes } from 'node:crypto';
import { close } from 'node:fs';
import { open, unlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { loadSystemCalls } from '../fs/native.ts';
import { RateTable } from './rate-table.ts';

/** Set in the environment of a worker that has been given the table, to its descriptor there. */
export const ratesVariable = 'FILETRACKER_RATES';

/**
 * Makes the memory in which the workers of one supervisor keep rates: a file without a name, so that nothing is left
 * of it, however they all end. Its place on the disk is taken here (see fs/native.ts).
 * @throws the system's error.
 */
export async function makeSharedRates(folder: string): Promise<FileHandle> {
  const path = join(folder, `rates-${randomBytes(8).toString('hex')}`);
  const file = await open(path, 'wx+', 0o600);
  try {
    await unlink(path);
    await file.writeFile(RateTable.initialBytes(randomBytes(8)));
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** The table that the supervisor of this process has made; undefined where it has made none. */
export async function sharedRates(): Promise<RateTable | undefined> {
  const descriptor = Number(process.env[ratesVariable] ?? Number.NaN);
  if (!Number.isSafeInteger(descriptor)) return undefined;
  const memory = (await loadSystemCalls()).map(descriptor, RateTable.sizeBytes);
  close(descriptor);
  return new RateTable(memory);
}
