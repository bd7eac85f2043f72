import { isUtf8 } from 'node:buffer';
import { lstat, opendir } from 'node:fs/promises';
import { join, relative, resolve, sep } from 'node:path';
import { errnoOf, FiletrackerError, fromSystemError, messageOf } from '../core/errors.ts';
import { parseFileName, type FileName } from '../core/file-name.ts';
import { checkVersion, type FileVersion } from '../core/file-version.ts';
import { wholeSeconds } from './legacy/legacy-links.ts';

/** A file of a tree as it would be stored, or why it cannot be. */
export type TreeItem =
  | {
      readonly kind: 'file';
      readonly path: string;
      readonly name: FileName;
      readonly version: FileVersion;
      readonly size: number;
    }
  | { readonly kind: 'skipped' | 'refused'; readonly path: string; readonly reason: string };

/**
 * Everything below `files`, a folder or a single file. Names are paths relative to `root`, versions the times of
 * modification, a fraction of a second cut off. Symbolic links and special files are skipped, and told of.
 * @throws FiletrackerError `not-found`, `invalid-argument` where `files` does not lie below `root`.
 */
export async function* treeItems(files: string, root: string): AsyncGenerator<TreeItem, void, void> {
  const start = resolve(files);
  const base = resolve(root);
  if (start !== base && !start.startsWith(base.endsWith(sep) ? base : base + sep)) {
    throw new FiletrackerError(
      'invalid-argument',
      `Cannot use --root "${root}": "${files}" does not lie in it`,
    );
  }
  const stats = await lstat(start).catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw fromSystemError(error, `read "${files}"`);
    throw new FiletrackerError('not-found', `Cannot read "${files}": there is no such file or folder`);
  });
  if (stats.isDirectory()) yield* itemsBelow(start, base);
  else yield await itemOf(start, start === base ? join(base, '..') : base);
}

async function* itemsBelow(folder: string, base: string): AsyncGenerator<TreeItem, void, void> {
  const items = await opendir(folder, { encoding: 'buffer' as BufferEncoding, bufferSize: 256 }).catch(
    (error: unknown) => errnoOf(error) ?? messageOf(error),
  );
  if (typeof items === 'string') {
    yield { kind: 'refused', path: folder, reason: `the folder cannot be read (${items})` };
    return;
  }
  for await (const item of items) {
    const bytes = item.name as unknown as Buffer;
    const path = join(folder, bytes.toString());
    if (!isUtf8(bytes)) yield { kind: 'refused', path, reason: 'its name is not valid UTF-8' };
    else if (item.isDirectory()) yield* itemsBelow(path, base);
    else yield await itemOf(path, base);
  }
}

async function itemOf(path: string, base: string): Promise<TreeItem> {
  try {
    const stats = await lstat(path, { bigint: true });
    if (stats.isSymbolicLink()) return { kind: 'skipped', path, reason: 'it is a symbolic link' };
    if (!stats.isFile()) return { kind: 'skipped', path, reason: 'it is no regular file' };
    const name = parseFileName(`/${relative(base, path).split(sep).join('/')}`);
    const version = checkVersion(wholeSeconds(stats.mtimeNs));
    return { kind: 'file', path, name, version, size: Number(stats.size) };
  } catch (error) {
    return { kind: 'refused', path, reason: messageOf(error) };
  }
}
