import { constants } from 'node:os';
import { cannot } from '../core/errors.ts';

/** Operations of flock(2). */
const flockOperations = { shared: 1, exclusive: 2, unlock: 8 } as const;
const flockNonBlocking = 4;

/** Lock types and the command of fcntl(2) for locks of an open file (F_OFD_SETLK): on Linux alike on all architectures. */
const rangeLockTypes = { shared: 0, exclusive: 1, unlock: 2 } as const;
const setOpenFileLock = 37;
/** `struct flock`: type and whence (16 bits each), start and length (64 bits each, aligned), process (32 bits). */
const flockSizeBytes = 32;

const protectReadWrite = 0x1 | 0x2;
const mapShared = 0x1;
/** A mapping takes whole pages; no supported system has smaller ones. */
const pageSizeBytes = 4096;
/** MAP_FAILED is -1, which is the address of no mapping. */
const mapFailed = 2n ** 64n - 1n;

export type LockOperation = keyof typeof flockOperations;

/** System calls that Node lacks. */
export interface SystemCalls {
  /**
   * flock(2) on an open file, without waiting; false if another holder excludes it.
   * @throws FiletrackerError `io`, with the errno as `details.actual`.
   */
  tryLock(descriptor: number, operation: LockOperation): boolean;
  /** fcntl(2) on one byte of an open file, without waiting; false if another process excludes it. @throws as `tryLock`. */
  tryLockByte(descriptor: number, operation: LockOperation, offset: number): boolean;
  /**
   * mmap(2) of at least `sizeBytes` from the beginning of an open file, shared by all processes that map it. The file
   * must have its blocks on the disk already (written, not only sized), so that a full disk cannot fail a later access.
   * The mapping outlives the descriptor and lasts as long as the process. @throws FiletrackerError `io`.
   */
  map(descriptor: number, sizeBytes: number): ArrayBuffer;
}

let systemCalls: Promise<SystemCalls> | undefined;

/** Loads the library for system calls with the first use, because programs that need none of them start faster. */
export function loadSystemCalls(): Promise<SystemCalls> {
  systemCalls ??= load();
  return systemCalls;
}

async function load(): Promise<SystemCalls> {
  const { default: koffi } = await import('koffi');
  const library = koffi.load(null);
  const flock = library.func('flock', 'int', ['int', 'int']) as (
    descriptor: number,
    operation: number,
  ) => number;
  const fcntl = library.func('fcntl', 'int', ['int', 'int', 'void *']) as (
    descriptor: number,
    command: number,
    lock: Uint8Array,
  ) => number;
  const mmap = library.func('mmap', 'void *', ['void *', 'size_t', 'int', 'int', 'int', 'int64_t']) as (
    ...parameters: [null, number, number, number, number, number]
  ) => unknown;
  const { EINTR, EAGAIN, EWOULDBLOCK, EACCES } = constants.errno;

  /** Repeats an interrupted call; false if the lock is held elsewhere. */
  function locks(call: () => number): boolean {
    while (call() !== 0) {
      const errno = koffi.errno();
      if (errno === EINTR) continue;
      if (errno === EAGAIN || errno === EWOULDBLOCK || errno === EACCES) return false;
      const details = { actual: errno };
      throw cannot('io', 'lock a file', `the system reports errno ${errno}`, { details });
    }
    return true;
  }

  // One structure for all calls, filled by hand: a conversion of an object by koffi takes 1.2 of 2.8 µs.
  const lock = new ArrayBuffer(flockSizeBytes);
  const lockBytes = new Uint8Array(lock);
  const [type, start, length] = [
    new Int16Array(lock, 0, 1),
    new BigInt64Array(lock, 8, 1),
    new BigInt64Array(lock, 16, 1),
  ];
  length[0] = 1n;

  return {
    tryLock: (descriptor, operation) =>
      locks(() => flock(descriptor, flockOperations[operation] | flockNonBlocking)),
    tryLockByte: (descriptor, operation, offset) => {
      type[0] = rangeLockTypes[operation];
      start[0] = BigInt(offset);
      return locks(() => fcntl(descriptor, setOpenFileLock, lockBytes));
    },
    map: (descriptor, sizeBytes) => {
      const pagesBytes = Math.ceil(sizeBytes / pageSizeBytes) * pageSizeBytes;
      const address = mmap(null, pagesBytes, protectReadWrite, mapShared, descriptor, 0);
      if (koffi.address(address) === mapFailed) {
        throw cannot('io', 'map a file', `the system reports errno ${koffi.errno()}`);
      }
      return koffi.view(address, pagesBytes);
    },
  };
}
