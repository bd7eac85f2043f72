import { createHash } from 'node:crypto';
import { lstat, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { gzipSync } from 'node:zlib';
import { load, putRequest } from './load.ts';
import { projectRoot, startServer } from './processes.ts';
import { atMostRow, rounded, type Row } from './table.ts';

const filesMax = 8000;
const fileSizeMaxBytes = 4 * 1024 * 1024;

async function* filesBelow(folder: string): AsyncGenerator<string> {
  const items = await readdir(folder, { withFileTypes: true });
  for (const item of items) {
    const path = join(folder, item.name);
    if (item.isDirectory()) yield* filesBelow(path);
    else if (item.isFile()) yield path;
  }
}

/** Bytes that a folder and all in it take on the disk, in blocks. */
async function blocksBelow(folder: string): Promise<number> {
  let bytes = (await lstat(folder)).blocks * 512;
  for (const item of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, item.name);
    bytes += item.isDirectory() ? await blocksBelow(path) : (await lstat(path)).blocks * 512;
  }
  return bytes;
}

/** The layout of the Python server 2.x: a gzip file for each content, a symbolic link for each name. */
async function writeLegacyStore(
  folder: string,
  names: readonly string[],
  contents: readonly Buffer[],
): Promise<void> {
  for (const [index, content] of contents.entries()) {
    const digest = createHash('sha256').update(content).digest('hex');
    const blob = join(folder, 'blobs', digest.slice(0, 2), digest);
    await mkdir(dirname(blob), { recursive: true });
    await writeFile(blob, gzipSync(content, { level: 9 }), { flag: 'wx' }).catch(() => undefined);
    for (const copy of ['one', 'two']) {
      const link = join(folder, 'links', copy, names[index] ?? '');
      await mkdir(dirname(link), { recursive: true });
      await symlink(relative(dirname(link), blob), link);
    }
  }
}

/** A tree of real files, each under two names: the disk it takes here and in the legacy layout. */
export async function measureDiskUse(folder: string): Promise<Row[]> {
  const root = join(projectRoot, 'node_modules');
  const names: string[] = [];
  const contents: Buffer[] = [];
  for await (const path of filesBelow(root)) {
    if (contents.length >= filesMax || path.includes('.cache')) continue;
    const content = await readFile(path);
    if (content.length > fileSizeMaxBytes) continue;
    names.push(relative(root, path));
    contents.push(content);
  }
  const legacy = join(folder, 'legacy');
  await mkdir(legacy);
  await writeLegacyStore(legacy, names, contents);
  const store = join(folder, 'disk-use');
  {
    await using server = await startServer(store, ['--workers', '1']);
    for (const copy of ['one', 'two']) {
      await load(server.port, 16, contents.length, (index) => {
        const path = (names[index] ?? '').split('/').map(encodeURIComponent).join('/');
        return putRequest(`/files/${copy}/${path}`, contents[index] ?? Buffer.alloc(0));
      });
    }
  }
  const ours = await blocksBelow(store);
  const theirs = await blocksBelow(legacy);
  const plain = contents.reduce((sum, content) => sum + content.length, 0);
  const mib = (bytes: number): string => `${rounded(bytes / 1024 / 1024)} MiB`;
  const more = `${mib(ours)} against ${mib(theirs)}; ${rounded(contents.length)} files of ${mib(plain)} in all`;
  return [
    atMostRow(
      'Disk for real files (node_modules), each under two names, against the legacy layout',
      ours / theirs,
      0.65,
      more,
    ),
    atMostRow('The same, against the plain bytes of both names', ours / (2 * plain), 1),
  ];
}
