import { randomUUID } from 'node:crypto';
import { link, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, FiletrackerError, fromSystemError } from '../../core/errors.ts';
import { checkStoredFormat } from '../../core/release.ts';
import { writeFileDurably } from '../../fs/durable-file.ts';
import { syncFolder } from '../../fs/folders.ts';

/** Beside the parts of a store: by what a backup knows it again, wherever it lies. Made by its first backup. */
export const identityFileName = 'store.json';

/**
 * The identity of a store, which is given to it here if it has none.
 * @throws FiletrackerError `corrupt-store` where the file of it is not one, and of the disk.
 */
export async function identityOf(storeFolder: string): Promise<string> {
  const known = await readIdentity(storeFolder);
  if (known !== undefined) return known;
  const path = join(storeFolder, identityFileName);
  const own = `${path}.${randomUUID()}.temporary`;
  await writeFileDurably(own, Buffer.from(`${JSON.stringify({ format: 1, id: randomUUID() })}\n`));
  try {
    // Not renamed: of two that come at once, the second takes what the first has made.
    await link(own, path);
    await syncFolder(storeFolder);
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw fromSystemError(error, 'give the store its identity');
  } finally {
    await rm(own, { force: true });
  }
  return (await readIdentity(storeFolder)) ?? refuse();
}

function refuse(): never {
  throw new FiletrackerError(
    'corrupt-store',
    `Cannot read "${identityFileName}": it does not tell the identity of the store; remove it to give it a new one`,
  );
}

/** The identity of a store; undefined where it has none yet. @throws as `identityOf`. */
export async function readIdentity(storeFolder: string): Promise<string | undefined> {
  try {
    const content: unknown = JSON.parse(await readFile(join(storeFolder, identityFileName), 'utf8'));
    checkStoredFormat(identityFileName, content, [1]);
    const { format, id } = (content ?? {}) as { readonly format?: unknown; readonly id?: unknown };
    return format === 1 && typeof id === 'string' ? id : refuse();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    if (error instanceof SyntaxError) return refuse();
    throw fromSystemError(error, `read "${identityFileName}"`);
  }
}
