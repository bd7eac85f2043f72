import { lstatSync, readlinkSync } from 'node:fs';
import { opendir } from 'node:fs/promises';
import { isDigest, type Digest } from '../../../core/digest.ts';
import { errnoOf, fromSystemError, messageOf } from '../../../core/errors.ts';
import { parseFileName, type FileName } from '../../../core/file-name.ts';
import { versionFromNs, type FileVersion } from '../../../core/file-version.ts';
import { unmangledName } from './legacy-names.ts';

/** A name of the 2.x store as it lies on disk: its path below `links/`, in bytes, and as text. */
export interface LegacyLink {
  readonly path: Buffer;
  /** With a slash at the beginning; undefined where the bytes are no text. */
  readonly text: string | undefined;
  readonly isLink: boolean;
}

/** What a link says, or why it cannot be taken over. */
export type LegacyEntry =
  | {
      readonly kind: 'entry';
      readonly name: FileName;
      readonly version: FileVersion;
      readonly digest: Digest;
    }
  | { readonly kind: 'refused'; readonly path: string; readonly reason: string };

const slash = Buffer.from('/');

/** Everything below `links/` that is no folder. Memory: a path per level. */
export function legacyLinks(folder: string): AsyncGenerator<LegacyLink, void, void> {
  return linksBelow(Buffer.from(folder), '');
}

async function* linksBelow(
  folder: Buffer,
  textAbove: string | undefined,
): AsyncGenerator<LegacyLink, void, void> {
  const items = await opendir(folder, { encoding: 'buffer' as BufferEncoding, bufferSize: 256 }).catch(
    (error: unknown) => {
      throw fromSystemError(error, 'read the old store');
    },
  );
  for await (const item of items) {
    const bytes = item.name as unknown as Buffer;
    const path = Buffer.concat([folder, slash, bytes]);
    const own = unmangledName(bytes);
    const text = own === undefined || textAbove === undefined ? undefined : `${textAbove}/${own}`;
    if (item.isDirectory()) yield* linksBelow(path, text);
    else yield { path, text, isLink: item.isSymbolicLink() };
  }
}

/**
 * Reads a link: its own time is the version, a fraction of a second cut off, and its target names the blob. By
 * synchronous calls, because nothing else goes on meanwhile, and a way through the thread pool costs five
 * times as much.
 */
export function readLegacyLink(link: LegacyLink): LegacyEntry {
  const { path, text, isLink } = link;
  const shown = text ?? path.toString('latin1');
  const refused = (reason: string): LegacyEntry => ({ kind: 'refused', path: shown, reason });
  if (!isLink) return refused('it is no symbolic link');
  if (text === undefined) return refused('its name is not valid UTF-8');
  try {
    const stats = lstatSync(path, { bigint: true });
    const target = readlinkSync(path);
    const digest = /(?:^|\/)blobs\/(?:[^/]+\/)?([^/]+)$/.exec(target)?.[1] ?? '';
    if (!isDigest(digest)) return refused('it does not lead to a blob');
    const name = parseFileName(text);
    return { kind: 'entry', name, version: versionFromNs(stats.mtimeNs), digest };
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return refused('it has gone meanwhile');
    if (errnoOf(error) !== undefined) throw fromSystemError(error, 'read the old store');
    return refused(messageOf(error));
  }
}
