import { mkdir, symlink, writeFile, lutimes } from 'node:fs/promises';
import { spawnSync } from 'node:child_process';
import { dirname, join, relative } from 'node:path';
import { gzipSync } from 'node:zlib';
import { digestOf } from '../../src/core/digest.ts';

/** A folder as the legacy server, version 2, leaves it, built by hand. */
export class LegacyFolder {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  async prepare(): Promise<void> {
    for (const part of ['links', 'blobs', 'db', 'locks']) {
      await mkdir(join(this.folder, part), { recursive: true });
    }
    await writeFile(join(this.folder, 'db', '__db.001'), 'Berkeley DB');
  }

  /** As that server writes a name: UTF-8 bytes taken for Latin-1, and encoded again. */
  mangled(name: string): string {
    return Buffer.from(name).toString('latin1');
  }

  blobPath(digest: string): string {
    return join(this.folder, 'blobs', digest.slice(0, 2), digest);
  }

  linkPath(name: string): string {
    return join(this.folder, 'links', this.mangled(name));
  }

  async addBlob(content: Buffer, stored = gzipSync(content)): Promise<string> {
    const digest = digestOf(content);
    await this.addStored(digest, stored);
    return digest;
  }

  async addStored(digest: string, stored: Buffer): Promise<void> {
    await mkdir(dirname(this.blobPath(digest)), { recursive: true });
    await writeFile(this.blobPath(digest), stored);
  }

  /** `time` is what `touch -d` reads, and may have nine digits after the point. */
  async addLink(name: string, digest: string, time: string | number): Promise<void> {
    const path = this.linkPath(name);
    await mkdir(dirname(path), { recursive: true });
    await symlink(relative(dirname(path), this.blobPath(digest)), path);
    if (typeof time === 'number') await lutimes(path, time, time);
    else spawnSync('touch', ['-h', '-d', time, path]);
  }

  async add(name: string, content: Buffer, time: string | number): Promise<string> {
    const digest = await this.addBlob(content);
    await this.addLink(name, digest, time);
    return digest;
  }
}
