import { access } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../core/clock.ts';
import { errnoOf, fromSystemError } from '../core/errors.ts';
import { tokensFileName, tokensMarkerName } from '../maintenance/token-files.ts';
import type { EngineConfig } from './engine-config.ts';
import type { TokenEditor, TokenSource } from './token-source.ts';
import { TokenFileEditor, TokenStore } from './token-store.ts';

/** Where the tokens of a store are: in its folder, or in the database that its servers share. */
export interface TokenPlace {
  readonly folder: string;
  readonly engines: Pick<EngineConfig, 'catalog'>;
}

async function folderHasTokens(folder: string): Promise<boolean> {
  for (const name of [tokensFileName, tokensMarkerName]) {
    try {
      await access(join(folder, name));
      return true;
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw fromSystemError(error, `look for "${name}"`);
    }
  }
  return false;
}

/** @throws FiletrackerError `corrupt-store` where what is in the folder is no list of tokens. */
export async function openTokens(
  { folder, engines }: TokenPlace,
  onProblem: (error: unknown) => void,
): Promise<TokenSource> {
  if (engines.catalog === undefined) return TokenStore.open(folder, onProblem);
  const { PostgresTokens } = await import('./postgres-tokens.ts');
  return PostgresTokens.open({
    ...engines.catalog,
    folderHasTokens: await folderHasTokens(folder),
    onProblem,
  });
}

/** @throws FiletrackerError `unavailable` where the database cannot be reached. */
export async function openTokenEditor({ folder, engines }: TokenPlace, clock: Clock): Promise<TokenEditor> {
  if (engines.catalog === undefined) return new TokenFileEditor(folder, clock);
  const { PostgresTokenEditor } = await import('./postgres-tokens.ts');
  return PostgresTokenEditor.open(engines.catalog, clock);
}
