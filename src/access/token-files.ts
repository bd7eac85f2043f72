import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileDurably } from '../fs/durable-file.ts';
import { unlessMissing } from '../fs/folders.ts';

/** The tokens of a store. */
export const tokensFileName = 'tokens.json';
/**
 * Exists from the first token on, and no program removes it: without it, a store whose tokens are lost would look like
 * one that never had any, which is open to all.
 */
export const tokensMarkerName = 'tokens-required.json';
/** Locked by programs while they change the tokens. */
export const tokensLockName = 'tokens.lock';

/** Hashes of secrets are not secret, but names and rights are private. */
export const tokensFileMode = 0o600;

/** Copies the tokens of a backup into a restored store, the marker first. @throws FiletrackerError of the disk. */
export async function restoreTokens(backup: string, store: string): Promise<void> {
  for (const name of [tokensMarkerName, tokensFileName]) {
    const bytes = await unlessMissing(readFile(join(backup, name)), 'read the tokens of the backup');
    if (bytes !== undefined) await writeFileDurably(join(store, name), bytes, { mode: tokensFileMode });
  }
}
