import { linkSync, mkdirSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { DiskEvent } from './disk-log.ts';
import type { Random } from './random.ts';

/** How a cut treats what was not synced. */
export interface CutManner {
  /** Chance for a piece of a write, or a truncation, to have reached the disk. */
  readonly bytes: number;
  /** Chance for a name that was made, moved or removed. */
  readonly names: number;
  /** In which a write reaches the disk or not: a sector or a block. */
  readonly pieceSizeBytes: number;
}

interface PendingBytes {
  readonly event: DiskEvent;
  durable: boolean;
}

/** A file: bytes that are durable, and changes in their order of which some may not be. */
class SimulatedFile {
  #bytes: Buffer = Buffer.alloc(0);
  #pending: PendingBytes[] = [];

  change(event: DiskEvent): void {
    this.#pending.push({ event, durable: event.durable });
    this.#fold();
  }

  sync(begin: number): void {
    for (const pending of this.#pending) if (pending.event.end < begin) pending.durable = true;
    this.#fold();
  }

  /** The bytes as a reader saw them last. */
  get seen(): Buffer {
    return this.#pending.reduce((bytes, { event }) => applied(bytes, event), this.#bytes);
  }

  /** The bytes after a cut; `underWay` are changes that had begun. */
  cut(manner: CutManner, random: Random, underWay: readonly DiskEvent[]): Buffer {
    let bytes = this.#bytes;
    for (const { event, durable } of this.#pending) {
      bytes = durable ? applied(bytes, event) : appliedInPart(bytes, event, manner, random);
    }
    for (const event of underWay) bytes = appliedInPart(bytes, event, manner, random);
    return bytes;
  }

  #fold(): void {
    let folded = 0;
    for (const { event, durable } of this.#pending) {
      if (!durable) break;
      this.#bytes = applied(this.#bytes, event, true);
      folded += 1;
    }
    this.#pending.splice(0, folded);
  }
}

interface PendingName {
  readonly event: DiskEvent;
  readonly name: string;
  /** What the name stands for from now on; undefined where it was removed. */
  readonly node: Node | undefined;
  /** The name that goes in the same change, if it is in the same folder. */
  readonly removed?: string | undefined;
  /** The other half of a move between folders: without it this half has not happened either. */
  readonly follows?: PendingName | undefined;
  durable: boolean;
}

class SimulatedFolder {
  readonly live = new Map<string, Node>();
  readonly #durable = new Map<string, Node>();
  #pending: PendingName[] = [];

  change(pending: PendingName): PendingName {
    applyName(this.live, pending);
    this.#pending.push(pending);
    return pending;
  }

  sync(begin: number): void {
    for (const pending of this.#pending) {
      if (pending.event.end >= begin) continue;
      pending.durable = true;
      if (pending.follows) pending.follows.durable = true;
    }
    while (this.#pending[0]?.durable) {
      const first = this.#pending.shift();
      if (first) applyName(this.#durable, first);
    }
  }

  cut(chosen: (pending: PendingName) => boolean): Map<string, Node> {
    const names = new Map(this.#durable);
    for (const pending of this.#pending) if (pending.durable || chosen(pending)) applyName(names, pending);
    return names;
  }
}

type Node = SimulatedFile | SimulatedFolder;

function applyName(names: Map<string, Node>, { name, node, removed }: PendingName): void {
  if (removed !== undefined) names.delete(removed);
  if (node === undefined) names.delete(name);
  else names.set(name, node);
}

/**
 * A disk that remembers what is durable and what is not.
 *
 * Invariant: after `advance` to an event all that ended up to then has been taken in. What is durable: bytes that a
 * sync of the file began after, or that were written with O_DSYNC; names that a sync of their folder began after.
 * Nothing else is granted, although real file systems give more: a file's sync makes no name durable, and of
 * names that were not synced any may be there and any missing, whatever their order. Only a move is one change:
 * the old name is not gone before the new one is there.
 */
export class SimulatedDisk {
  readonly #root = new SimulatedFolder();
  readonly #rootPath: string;
  readonly #events: readonly DiskEvent[];
  readonly #files = new Map<number, SimulatedFile>();
  readonly #ignoredSync: (event: DiskEvent) => boolean;
  #next = 0;

  /** `ignoredSync` takes syncs out, as a build would that forgets them. */
  constructor(
    rootPath: string,
    events: readonly DiskEvent[],
    ignoredSync: (event: DiskEvent) => boolean = () => false,
  ) {
    this.#rootPath = rootPath;
    this.#events = events;
    this.#ignoredSync = ignoredSync;
  }

  /** Takes in all that had ended at this point of the sequence. Points must ascend. */
  advance(sequence: number): void {
    for (;;) {
      const event = this.#events[this.#next];
      if (event === undefined || event.end > sequence) return;
      this.#next += 1;
      this.#apply(event);
    }
  }

  /** The paths of all files and folders as they were seen last; of a file its bytes and inode. */
  seen(): Map<string, { readonly inode: number; readonly bytes: Buffer } | 'folder'> {
    const inodes = new Map([...this.#files].map(([inode, file]) => [file, inode]));
    const found = new Map<string, { inode: number; bytes: Buffer } | 'folder'>();
    const visit = (folder: SimulatedFolder, path: string): void => {
      for (const [name, node] of folder.live) {
        const at = join(path, name);
        if (node instanceof SimulatedFolder) {
          found.set(at, 'folder');
          visit(node, at);
        } else {
          found.set(at, { inode: inodes.get(node) ?? 0, bytes: node.seen });
        }
      }
    };
    visit(this.#root, this.#rootPath);
    return found;
  }

  /** Writes the disk as the cut leaves it into a folder that is there and empty. */
  cut(sequence: number, target: string, manner: CutManner, random: Random): void {
    const underWay = new Map<SimulatedFile, DiskEvent[]>();
    for (const event of this.#events.slice(this.#next, this.#next + 64)) {
      if (event.begin > sequence || (event.kind !== 'write' && event.kind !== 'truncate')) continue;
      const file = this.#files.get(event.inode);
      if (file !== undefined) underWay.set(file, [...(underWay.get(file) ?? []), event]);
    }
    const choices = new Map<PendingName, boolean>();
    const chosen = (pending: PendingName): boolean => {
      let choice = choices.get(pending);
      if (choice === undefined) {
        choice = random.chance(manner.names);
        if (pending.follows && !pending.follows.durable) choice = choice && chosen(pending.follows);
        choices.set(pending, choice);
      }
      return choice;
    };
    const written = new Map<SimulatedFile, string>();
    const write = (folder: SimulatedFolder, path: string): void => {
      for (const [name, node] of folder.cut(chosen)) {
        const at = join(path, name);
        if (node instanceof SimulatedFolder) {
          mkdirSync(at);
          write(node, at);
          continue;
        }
        const first = written.get(node);
        if (first === undefined) writeFileSync(at, node.cut(manner, random, underWay.get(node) ?? []));
        else linkSync(first, at);
        written.set(node, at);
      }
    };
    write(this.#root, target);
  }

  #apply(event: DiskEvent): void {
    if (event.kind === 'write' || event.kind === 'truncate') {
      const durable = event.durable && !this.#ignoredSync(event);
      this.#files.get(event.inode)?.change({ ...event, durable });
    } else if (event.kind !== 'sync') {
      this.#applyName(event);
    } else if (!this.#ignoredSync(event)) {
      if (event.folder) this.#folder(event.path).sync(event.begin);
      else this.#files.get(event.inode)?.sync(event.begin);
    }
  }

  #applyName(event: DiskEvent): void {
    const folder = this.#folder(dirname(event.path));
    const name = basename(event.path);
    if (event.kind === 'link' || event.kind === 'rename') {
      this.#move(event, folder, name);
      return;
    }
    let node: Node | undefined;
    if (event.kind === 'create') {
      node = new SimulatedFile();
      this.#files.set(event.inode, node);
    } else if (event.kind === 'mkdir') {
      node = new SimulatedFolder();
    }
    folder.change({ event, name, node, durable: false });
  }

  #move(event: DiskEvent, folder: SimulatedFolder, name: string): void {
    const node = folder.live.get(name);
    if (node === undefined) throw new Error(`the log moves a file that it has not made: ${event.path}`);
    const to = this.#folder(dirname(event.target));
    const newName = basename(event.target);
    if (event.kind === 'link') {
      to.change({ event, name: newName, node, durable: false });
    } else if (to === folder) {
      to.change({ event, name: newName, node, removed: name, durable: false });
    } else {
      const follows = to.change({ event, name: newName, node, durable: false });
      folder.change({ event, name, node: undefined, follows, durable: false });
    }
  }

  #folder(path: string): SimulatedFolder {
    let folder = this.#root;
    const below = path.slice(this.#rootPath.length + 1);
    for (const name of below === '' ? [] : below.split('/')) {
      const next = folder.live.get(name);
      if (!(next instanceof SimulatedFolder)) throw new Error(`the log knows no folder ${path}`);
      folder = next;
    }
    return folder;
  }
}

/** `inPlace` where nobody else holds the bytes. */
function applied(bytes: Buffer, event: DiskEvent, inPlace = false): Buffer {
  const { kind, offset, length } = event;
  if (kind === 'truncate') return resized(bytes, length);
  const end = offset + event.bytes.length;
  const target = end > bytes.length ? resized(bytes, end) : inPlace ? bytes : Buffer.from(bytes);
  event.bytes.copy(target, offset);
  return target;
}

function resized(bytes: Buffer, size: number): Buffer {
  const target = Buffer.alloc(size);
  bytes.copy(target, 0, 0, Math.min(size, bytes.length));
  return target;
}

/** Each piece of a write is there or not; where only the size is, zeros are. */
function appliedInPart(bytes: Buffer, event: DiskEvent, manner: CutManner, random: Random): Buffer {
  if (event.kind === 'truncate') return random.chance(manner.bytes) ? applied(bytes, event) : bytes;
  if (manner.bytes >= 1) return applied(bytes, event);
  if (manner.bytes <= 0) return bytes;
  const { offset, length } = event;
  let target: Buffer = Buffer.from(bytes);
  if (random.chance(manner.bytes) && offset + length > target.length)
    target = resized(target, offset + length);
  for (let start = offset; start < offset + length;) {
    const end = Math.min(offset + length, start + manner.pieceSizeBytes - (start % manner.pieceSizeBytes));
    if (random.chance(manner.bytes)) {
      if (end > target.length) target = resized(target, end);
      event.bytes.copy(target, start, start - offset, end - offset);
    }
    start = end;
  }
  return target;
}
