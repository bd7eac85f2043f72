import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  writeSync,
  closeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const source = fileURLToPath(new URL('./disk-recorder.c', import.meta.url));

/** Why the recorder cannot be had here, or undefined where it can. */
export function recorderMissing(): string | undefined {
  if (process.platform !== 'linux') return 'the recorder needs LD_PRELOAD of Linux';
  try {
    execFileSync('gcc', ['--version'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return 'there is no C compiler; `apt-get install gcc libc6-dev` brings one';
  }
}

/** Compiles the recorder unless it lies compiled already; gives the path of the library. */
function compiledRecorder(): string {
  const text = readFileSync(source);
  const print = createHash('sha256').update(text).digest('hex').slice(0, 16);
  const target = join(tmpdir(), `filetracker-recorder-${process.getuid?.() ?? 0}`, `${print}.so`);
  if (existsSync(target)) return target;
  mkdirSync(dirname(target), { recursive: true, mode: 0o700 });
  const temporary = `${target}.${process.pid}`;
  execFileSync('gcc', ['-shared', '-fPIC', '-O2', '-o', temporary, source, '-ldl', '-pthread']);
  renameSync(temporary, target);
  return target;
}

/** Kinds of calls that can be made to fail; a sum of them. With `after` a write fails that has been carried out. */
export const faultKinds = { write: 1, sync: 2, read: 4, open: 8, name: 16, truncate: 32, after: 64 } as const;

export interface Fault {
  /** As in errno.h: 5 EIO, 28 ENOSPC, 30 EROFS. */
  readonly errno: number;
  readonly kinds: number;
  /** Matching calls are counted from 0; those from `from` on fail, up to `to`. */
  readonly from?: number;
  readonly to?: number;
  /** Only calls on paths that hold this. */
  readonly pattern?: string;
}

const controlSizeBytes = 4096;
const offsets = {
  sequence: 0,
  changes: 8,
  killAt: 16,
  killTorn: 24,
  killGroup: 28,
  errno: 32,
  kinds: 36,
  from: 40,
  to: 48,
  matched: 56,
  slow: 64,
  pattern: 120,
} as const;

/** The file through which a test and the recorded processes talk: see `struct control` of the recorder. */
export class RecorderControl {
  readonly path: string;
  readonly #descriptor: number;
  readonly #bytes = Buffer.alloc(8);

  constructor(path: string) {
    this.path = path;
    const fresh = !existsSync(path);
    this.#descriptor = openSync(path, fresh ? 'w+' : 'r+');
    if (fresh) writeSync(this.#descriptor, Buffer.alloc(controlSizeBytes), 0, controlSizeBytes, 0);
  }

  /** Begins and ends of changes so far. */
  get sequence(): number {
    return this.#read(offsets.sequence);
  }

  get changes(): number {
    return this.#read(offsets.changes);
  }

  /** Calls that a fault was meant for. */
  get matched(): number {
    return this.#read(offsets.matched);
  }

  /**
   * Dies at the change of this number, counted from the first change of the control; 0 for never. A torn write is
   * carried out by half before, a `whole` one wholly, though nobody has been told.
   */
  killAt(change: number, options: { torn?: boolean | 'whole'; group?: boolean } = {}): void {
    this.#write32(offsets.killTorn, options.torn === 'whole' ? 2 : options.torn ? 1 : 0);
    this.#write32(offsets.killGroup, options.group ? 1 : 0);
    this.#write64(offsets.killAt, change);
  }

  fail(fault: Fault): void {
    this.heal();
    this.#write64(offsets.from, fault.from ?? 0);
    this.#write64(offsets.to, fault.to ?? Number.MAX_SAFE_INTEGER);
    this.#write64(offsets.matched, 0);
    const pattern = Buffer.alloc(128);
    pattern.write(fault.pattern ?? '');
    writeSync(this.#descriptor, pattern, 0, pattern.length, offsets.pattern);
    this.#write32(offsets.kinds, fault.kinds);
    this.#write32(offsets.errno, fault.errno);
  }

  heal(): void {
    this.#write32(offsets.errno, 0);
  }

  /** Every change takes so much longer. */
  slowDown(microseconds: number): void {
    this.#write32(offsets.slow, microseconds);
  }

  /** What a process needs in its environment to be recorded. */
  environment(folder: string, logPath?: string): Record<string, string> {
    const recorder = compiledRecorder();
    return {
      // By its name alone: the loader splits a path at blanks.
      LD_PRELOAD: basename(recorder),
      LD_LIBRARY_PATH: dirname(recorder),
      UV_USE_IO_URING: '0',
      FT_PROOF_ROOT: folder,
      FT_PROOF_CONTROL: this.path,
      ...(logPath !== undefined && { FT_PROOF_LOG: logPath }),
    };
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  #read(offset: number): number {
    readSync(this.#descriptor, this.#bytes, 0, 8, offset);
    return Number(this.#bytes.readBigUInt64LE(0));
  }

  #write32(offset: number, value: number): void {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    writeSync(this.#descriptor, bytes, 0, 4, offset);
  }

  #write64(offset: number, value: number): void {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt(value));
    writeSync(this.#descriptor, bytes, 0, 8, offset);
  }
}
