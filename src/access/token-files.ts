import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, fromSystemError } from '../core/errors.ts';
import { writeFileDurably } from '../fs/durable-file.ts';

/** The tokens of a store. */
export const tokensFileName = 'tokens.json';
/**
 * There from the first token on, and never removed by a program: without it, a store whose tokens are lost could
 * not be told from one that never had any, which is open to all.
 */
export const tokensMarkerName = 'tokens-required.json';
/** Held by programs while they change the tokens. */
export const tokensLockName = 'tokens.lock';

/** Hashes of secrets are no secrets, but names and rights are nobody else's business. */
export const tokensFileMode = 0o600;

/** Takes the tokens of a backup into the store that is made from it, the marker first. */
export async function restoreTokens(backup: string, store: string): Promise<void> {
  for (const name of [tokensMarkerName, tokensFileName]) {
    const bytes = await readIfThere(join(backup, name));
    if (bytes !== undefined) await writeFileDurably(join(store, name), bytes, { mode: tokensFileMode });
  }
}

async function readIfThere(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw fromSystemError(error, 'read the tokens of the backup');
  }
}
