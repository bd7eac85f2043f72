import type { Catalog, PutChange, PutContent } from '../../src/catalog/catalog.ts';
import { digestOf, type Digest } from '../../src/core/digest.ts';
import { parseFileName, type FileName } from '../../src/core/file-name.ts';

/** A blob placer that only remembers: what the catalog asks of the blob store can be read off it. */
export class RecordingPlacer {
  readonly objects = new Set<string>();
  readonly placed: string[] = [];

  async place(placements: readonly { stagedId: string; digest: Digest }[]): Promise<readonly string[]> {
    return placements.map(({ stagedId, digest }) => {
      this.placed.push(stagedId);
      this.objects.add(`key-${digest}`);
      return `key-${digest}`;
    });
  }

  async remove(keys: readonly string[]): Promise<void> {
    for (const key of keys) this.objects.delete(key);
  }

  async size(key: string): Promise<number | undefined> {
    return this.objects.has(key) ? 1 : undefined;
  }
}

export function name(text: string): FileName {
  return parseFileName(text);
}

/** A put of a text, inline unless told otherwise. */
export function putOf(path: string, version: number, text: string, more: Partial<PutChange> = {}): PutChange {
  const bytes = Buffer.from(text);
  const content: PutContent = { kind: 'inline', bytes };
  return {
    name: name(path),
    version,
    digest: digestOf(bytes),
    logicalSize: bytes.length,
    storedSize: bytes.length,
    encoding: 'identity',
    content,
    ...more,
  };
}

export async function namesOf(catalog: Catalog, directory = '/', options = {}): Promise<string[]> {
  const names: string[] = [];
  for await (const batch of catalog.listNames(directory, options)) names.push(...batch);
  return names;
}

/** The content of a name, if it lies in the catalog. */
export async function textOf(catalog: Catalog, path: string): Promise<string | undefined> {
  const found = await catalog.find(name(path));
  if (found?.location.kind !== 'inline') return undefined;
  return (await found.location.read())?.toString();
}
