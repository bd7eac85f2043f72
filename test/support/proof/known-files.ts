import { mkdirSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { LegacyFolder } from '../legacy-folder.ts';
import { contentOf, type Attempt } from './history.ts';

/** A file whose content is named as `contentOf` takes it. */
export interface KnownFile {
  readonly name: string;
  readonly version: number;
  readonly content: string;
}

/** Small and large files, some of one content. */
export function knownFiles(count: number): KnownFile[] {
  return Array.from({ length: count }, (_, index) => ({
    name: `/d${index % 3}/f${index}`,
    version: 1000 + index,
    content: `${index % 4 === 0 ? 60_000 : 700}-known${index % 20}`,
  }));
}

/** The files as changes that were acknowledged before anything else. */
export function attemptsOf(files: readonly KnownFile[]): Attempt[] {
  return files.map((file, id) => ({ ...file, id, kind: 'put', begin: 0, end: 0 }));
}

/** A folder as the legacy server, version 2, leaves it. */
export async function makeLegacyFolder(folder: string, files: readonly KnownFile[]): Promise<void> {
  const legacy = new LegacyFolder(folder);
  await legacy.prepare();
  for (const { name, version, content } of files) await legacy.add(name, contentOf(content), version);
}

/** A folder of the legacy server, version 1. */
export function makePlainFolder(folder: string, files: readonly KnownFile[]): void {
  for (const { name, version, content } of files) {
    const path = join(folder, 'files', name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, contentOf(content));
    utimesSync(path, version, version);
  }
}
