import { join } from 'node:path';
import { DiskBlobStore } from '../../src/blobs/disk/disk-blob-store.ts';
import { LmdbCatalog, type LmdbCatalogOptions } from '../../src/catalog/lmdb/lmdb-catalog.ts';
import { digestOf } from '../../src/core/digest.ts';
import { parseFileName } from '../../src/core/file-name.ts';
import { inlineSizeMaxBytes } from '../../src/core/limits.ts';
import { isFiletrackerError } from '../../src/core/errors.ts';
import { gunzipSync, gzipSync } from 'node:zlib';
import { collected } from './contents.ts';

/** An embedded store without a server: its catalog and its blobs, opened in this process. */
export class EmbeddedStore {
  readonly folder: string;
  readonly catalog: LmdbCatalog;
  readonly blobs: DiskBlobStore;

  private constructor(folder: string, catalog: LmdbCatalog, blobs: DiskBlobStore) {
    this.folder = folder;
    this.catalog = catalog;
    this.blobs = blobs;
  }

  static async open(folder: string, options: Partial<LmdbCatalogOptions> = {}): Promise<EmbeddedStore> {
    const blobs = await DiskBlobStore.open(folder);
    const folders = { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') };
    const catalog = await LmdbCatalog.open({ folders, placer: blobs, ...options });
    return new EmbeddedStore(folder, catalog, blobs);
  }

  /** Stores a file as the server would: compressed, small ones in the journal. */
  async put(path: string, version: number, bytes: Buffer): Promise<void> {
    const stored = gzipSync(bytes, { level: 1 });
    const change = {
      name: parseFileName(path),
      version,
      digest: digestOf(bytes),
      logicalSize: bytes.length,
      storedSize: stored.length,
      encoding: 'gzip',
    } as const;
    if (stored.length <= inlineSizeMaxBytes) {
      await this.catalog.put({ ...change, content: { kind: 'inline', bytes: stored } });
      return;
    }
    const upload = await this.blobs.stage();
    await upload.write(stored);
    await upload.seal();
    await this.catalog.put({ ...change, content: { kind: 'staged', stagedId: upload.stagedId } });
    await upload.discard();
  }

  /** The content of a file, 'damaged' where that is what the catalog says, undefined where there is none. */
  async read(path: string): Promise<Buffer | 'damaged' | undefined> {
    const found = await this.catalog.find(parseFileName(path));
    if (found === undefined) return undefined;
    if (found.damaged) return 'damaged';
    const { location, entry } = found;
    try {
      const stream = location.kind === 'object' ? await this.blobs.open(location.key) : undefined;
      const stored = location.kind === 'object' ? stream && (await collected(stream)) : await location.read();
      if (stored === undefined) return undefined;
      return entry.encoding === 'gzip' ? gunzipSync(stored) : stored;
    } catch (error) {
      if (isFiletrackerError(error, 'damaged-blob')) return 'damaged';
      throw error;
    }
  }

  async names(): Promise<string[]> {
    const names: string[] = [];
    for await (const batch of this.catalog.listNames('/')) names.push(...batch);
    return names;
  }

  async close(): Promise<void> {
    await this.catalog.close();
    await this.blobs.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
