import { readFileSync } from 'node:fs';

export type DiskEventKind =
  'write' | 'truncate' | 'sync' | 'create' | 'unlink' | 'rename' | 'link' | 'mkdir' | 'rmdir';

const kinds: readonly DiskEventKind[] = [
  'write',
  'truncate',
  'sync',
  'create',
  'unlink',
  'rename',
  'link',
  'mkdir',
  'rmdir',
];

/** One change or sync that a recorded process has made; see `struct entry` of the recorder. */
export interface DiskEvent {
  readonly kind: DiskEventKind;
  /** The sequence when it began and when it had ended. */
  readonly begin: number;
  readonly end: number;
  readonly inode: number;
  readonly offset: number;
  /** Of a write: its bytes' number; of a truncation: the size. */
  readonly length: number;
  /** Of a write: durable at its end. */
  readonly durable: boolean;
  /** Of a sync: of a folder. */
  readonly folder: boolean;
  readonly path: string;
  readonly target: string;
  readonly bytes: Buffer;
}

const mark = 0x4654;
const headerSizeBytes = 56;

/** Reads what was recorded, in the order in which changes ended. An entry that a death cut short is passed over. */
export function readDiskLog(...paths: readonly string[]): DiskEvent[] {
  const events: DiskEvent[] = [];
  for (const path of paths) {
    const log = readFileSync(path);
    let at = 0;
    while (at + headerSizeBytes <= log.length) {
      const event = readEntry(log, at);
      if (event === undefined) at += 1;
      else {
        events.push(event);
        at += log.readUInt32LE(at);
      }
    }
  }
  return events.sort((one, other) => one.end - other.end);
}

function readEntry(log: Buffer, at: number): DiskEvent | undefined {
  const size = log.readUInt32LE(at);
  const kind = kinds[log.readUInt16LE(at + 4) - 1];
  if (log.readUInt16LE(at + 6) !== mark || kind === undefined || at + size > log.length) return undefined;
  const flags = log.readUInt32LE(at + 48);
  const pathSize = log.readUInt16LE(at + 52);
  const targetSize = log.readUInt16LE(at + 54);
  const pathAt = at + headerSizeBytes;
  const bytesAt = pathAt + pathSize + targetSize;
  const length = Number(log.readBigUInt64LE(at + 40));
  if (size !== headerSizeBytes + pathSize + targetSize + (kind === 'write' ? length : 0)) return undefined;
  return {
    kind,
    end: Number(log.readBigUInt64LE(at + 8)),
    begin: Number(log.readBigUInt64LE(at + 16)),
    inode: Number(log.readBigUInt64LE(at + 24)),
    offset: Number(log.readBigUInt64LE(at + 32)),
    length,
    durable: (flags & 1) !== 0,
    folder: (flags & 2) !== 0,
    path: log.toString('utf8', pathAt, pathAt + pathSize),
    target: log.toString('utf8', pathAt + pathSize, bytesAt),
    bytes: log.subarray(bytesAt, at + size),
  };
}
