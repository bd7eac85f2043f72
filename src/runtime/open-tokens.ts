import { join } from 'node:path';
import type { Clock } from '../core/clock.ts';
import { FiletrackerError } from '../core/errors.ts';
import { exists } from '../fs/folders.ts';
import { folderKind, folderToOpen, type FolderKind } from '../maintenance/folder-kind.ts';
import { tokensFileName, tokensMarkerName } from '../access/token-files.ts';
import type { BackEndConfig } from '../config/back-end-config.ts';
import type { TokenEditor, TokenSource } from '../access/token-source.ts';
import { TokenFileEditor, TokenStore } from '../access/token-store.ts';

/** The place of the tokens of a store: its folder, or the database that its servers share. */
export interface TokenPlace {
  readonly folder: string;
  readonly backEnds: Pick<BackEndConfig, 'catalog'>;
}

async function folderHasTokens(folder: string): Promise<boolean> {
  for (const name of [tokensFileName, tokensMarkerName]) {
    if (await exists(join(folder, name), `look for "${name}"`)) return true;
  }
  return false;
}

/** @throws FiletrackerError `corrupt-store` if the file in the folder is not a list of tokens. */
export async function openTokens(
  { folder, backEnds }: TokenPlace,
  onProblem: (error: unknown) => void,
): Promise<TokenSource> {
  if (backEnds.catalog === undefined) return TokenStore.open(folder, onProblem);
  const { PostgresTokens } = await import('../access/postgres-tokens.ts');
  return PostgresTokens.open({
    ...backEnds.catalog,
    folderHasTokens: await folderHasTokens(folder),
    onProblem,
  });
}

/** Kinds of folders that a server can serve, or that hold a damaged store. */
const storeKinds: ReadonlySet<FolderKind['kind']> = new Set(['store', 'journal-lost', 'to-adopt', 'mixed']);

/**
 * Refuses a mistyped folder: a token that is added there would leave the real store open, and its list of tokens would
 * look like that of an open store.
 */
async function requireStore(folder: string, mayCreate: boolean): Promise<void> {
  const { kind } = await folderKind(folder);
  if (kind === 'unfinished-restore') await folderToOpen(folder);
  if (storeKinds.has(kind) || (await folderHasTokens(folder))) return;
  if (mayCreate) {
    await folderToOpen(folder);
    return;
  }
  const state = kind === 'absent' ? 'there is no such folder' : 'it holds no store';
  throw new FiletrackerError(
    'not-found',
    `Cannot find a store in "${folder}": ${state}; name its folder with -d, or start a new one with token add --create`,
  );
}

/**
 * @param options.create whether the store may be a new one.
 * @throws FiletrackerError `unavailable` if the database cannot be reached, `not-found` if there is no store.
 */
export async function openTokenEditor(
  { folder, backEnds }: TokenPlace,
  options: { readonly clock: Clock; readonly create: boolean },
): Promise<TokenEditor> {
  const { clock, create } = options;
  if (backEnds.catalog === undefined) {
    await requireStore(folder, create);
    return new TokenFileEditor(folder, clock);
  }
  const { PostgresTokenEditor } = await import('../access/postgres-tokens.ts');
  return PostgresTokenEditor.open(backEnds.catalog, options);
}
