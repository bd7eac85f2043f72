import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { DiskEvent, DiskEventKind } from './disk-log.ts';
import { SimulatedDisk } from './simulated-disk.ts';

/**
 * What a process has changed right before it was killed, and could not note any more: the difference between what the
 * log tells and what is in the folder, as changes at `sequence` that nobody has made durable.
 */
export function missedEvents(folder: string, events: readonly DiskEvent[], sequence: number): DiskEvent[] {
  const disk = new SimulatedDisk(folder, events);
  disk.advance(Infinity);
  const seen = disk.seen();
  const missed: DiskEvent[] = [];
  const note = (kind: DiskEventKind, path: string, more: Partial<DiskEvent> = {}): void => {
    const none = { inode: 0, offset: 0, length: 0, target: '', bytes: Buffer.alloc(0) };
    missed.push({
      ...none,
      kind,
      path,
      begin: sequence,
      end: sequence,
      durable: false,
      folder: false,
      ...more,
    });
  };
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();
  const real = names.map((name) => {
    const path = join(folder, name);
    const stats = statSync(path);
    return { path, inode: stats.isDirectory() ? undefined : stats.ino };
  });
  const stays = new Set(real.map(({ path, inode }) => `${inode} ${path}`));
  for (const { path, inode } of real) {
    const known = seen.get(path);
    if (inode === undefined) {
      if (known !== 'folder') note('mkdir', path);
      seen.delete(path);
      continue;
    }
    let bytes = known !== 'folder' && known?.inode === inode ? known.bytes : undefined;
    const moved = [...seen].find(([, other]) => other !== 'folder' && other.inode === inode);
    if (bytes === undefined && moved !== undefined && moved[1] !== 'folder') {
      const [from, { bytes: same }] = moved;
      bytes = same;
      note(stays.has(`${inode} ${from}`) ? 'link' : 'rename', from, { target: path, inode });
      if (!stays.has(`${inode} ${from}`)) seen.delete(from);
    } else if (bytes === undefined) {
      note('create', path, { inode });
    }
    const found = readFileSync(path);
    if (bytes !== undefined && bytes.length > found.length)
      note('truncate', path, { inode, length: found.length });
    if (bytes?.equals(found) !== true && found.length > 0)
      note('write', path, { inode, length: found.length, bytes: found });
    if (!stays.has(`${inode} ${path}`) || known !== undefined) seen.delete(path);
  }
  for (const [path, gone] of [...seen].reverse()) {
    if (!real.some((there) => there.path === path)) note(gone === 'folder' ? 'rmdir' : 'unlink', path);
  }
  return missed;
}
