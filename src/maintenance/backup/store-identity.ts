import { randomUUID } from 'node:crypto';
import { link, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { cannot, errnoOf, fromSystemError, type FiletrackerError } from '../../core/errors.ts';
import { writeFileDurably } from '../../fs/durable-file.ts';
import { syncFolder } from '../../fs/folders.ts';
import { readStateFile } from '../store-folders.ts';

/** Identifies a store to its backups, wherever it is moved. The first backup creates it. */
export const identityFileName = 'store.json';

/**
 * The identity of a store; a store that has none receives one.
 * @throws FiletrackerError `corrupt-store` if the file is damaged; errors of the disk.
 */
export async function identityOf(storeFolder: string): Promise<string> {
  const known = await readIdentity(storeFolder);
  if (known !== undefined) return known;
  const path = join(storeFolder, identityFileName);
  const own = `${path}.${randomUUID()}.temporary`;
  await writeFileDurably(own, Buffer.from(`${JSON.stringify({ format: 1, id: randomUUID() })}\n`));
  try {
    // Not a rename: of two concurrent calls, the second one uses the identity of the first.
    await link(own, path);
    await syncFolder(storeFolder);
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw fromSystemError(error, 'create the identity of the store');
  } finally {
    await rm(own, { force: true });
  }
  const given = await readIdentity(storeFolder);
  if (given === undefined) throw unreadableIdentity();
  return given;
}

function unreadableIdentity(): FiletrackerError {
  const state = 'it does not contain the identity of the store; remove it to give the store a new one';
  return cannot('corrupt-store', `read "${identityFileName}"`, state);
}

/** The identity of a store; `undefined` if it has none yet. @throws as `identityOf`. */
export async function readIdentity(storeFolder: string): Promise<string | undefined> {
  const content = await readStateFile(join(storeFolder, identityFileName));
  if (content === undefined) return undefined;
  const { format, id } = (content ?? {}) as { readonly format?: unknown; readonly id?: unknown };
  if (format === 1 && typeof id === 'string') return id;
  throw unreadableIdentity();
}
