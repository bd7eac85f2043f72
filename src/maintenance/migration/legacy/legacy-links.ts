import { isUtf8 } from 'node:buffer';
import { lstatSync, readlinkSync } from 'node:fs';
import { opendir } from 'node:fs/promises';
import { isDigest, type Digest } from '../../../core/digest.ts';
import { errnoOf, fromSystemError, messageOf } from '../../../core/errors.ts';
import { parseFileName, type FileName } from '../../../core/file-name.ts';
import { versionFromNs, type FileVersion } from '../../../core/file-version.ts';

/** A name of the 2.x store on disk: its path below `links/`, in bytes, and as text. */
export interface LegacyLink {
  readonly path: Buffer;
  /** With a slash at the beginning; `undefined` if the bytes are not text. */
  readonly text: string | undefined;
  readonly isLink: boolean;
}

/** The entry of a link, or why it cannot be adopted. */
export type LegacyEntry =
  | {
      readonly kind: 'entry';
      readonly name: FileName;
      readonly version: FileVersion;
      readonly digest: Digest;
    }
  | { readonly kind: 'refused'; readonly path: string; readonly reason: string };

const slash = Buffer.from('/');

/** Everything below `links/` that is not a folder. Memory: a path per level. */
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
 * Reads a link: its own time, rounded down to a second, is the version, and its target names the blob. The calls are
 * synchronous because nothing else runs meanwhile, and the thread pool costs five times as much.
 */
export function readLegacyLink(link: LegacyLink): LegacyEntry {
  const { path, text, isLink } = link;
  const shown = text ?? path.toString('latin1');
  const refused = (reason: string): LegacyEntry => ({ kind: 'refused', path: shown, reason });
  if (!isLink) return refused('it is not a symbolic link');
  if (text === undefined) return refused('its name is not valid UTF-8');
  try {
    const stats = lstatSync(path, { bigint: true });
    const target = readlinkSync(path);
    const digest = /(?:^|\/)blobs\/(?:[^/]+\/)?([^/]+)$/.exec(target)?.[1] ?? '';
    if (!isDigest(digest)) return refused('it does not point to a blob');
    const name = parseFileName(text);
    return { kind: 'entry', name, version: versionFromNs(stats.mtimeNs), digest };
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return refused('it was removed meanwhile');
    if (errnoOf(error) !== undefined) throw fromSystemError(error, 'read the old store');
    return refused(messageOf(error));
  }
}

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * The text of a file name in a 2.x store. That server read the UTF-8 bytes of a name as Latin-1 and encoded them as UTF-8
 * again; this undoes it. Any other name, such as one created by hand, stays as it is. `undefined` for bytes that are not
 * UTF-8. Source: legacy.md.
 */
export function unmangledName(bytes: Buffer): string | undefined {
  if (!isUtf8(bytes)) return undefined;
  const text = strictUtf8.decode(bytes);
  let ascii = true;
  for (let at = 0; at < text.length; at += 1) {
    const unit = text.charCodeAt(at);
    if (unit > 0xff) return text;
    if (unit > 0x7f) ascii = false;
  }
  if (ascii) return text;
  const inner = Buffer.from(text, 'latin1');
  return isUtf8(inner) ? strictUtf8.decode(inner) : text;
}
