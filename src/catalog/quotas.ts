import type { FileName } from '../core/file-name.ts';
import type { CatalogReader } from './catalog.ts';

/** Bounds on the names below a directory. */
export interface Quota {
  /** "/" or a directory without a slash at the end; a file of that very name counts too. */
  readonly prefix: string;
  /** Sum of the sizes before compression, each name counted. */
  readonly logicalBytesMax: number | undefined;
  readonly filesMax: number | undefined;
}

/** Bounds on a whole catalog. */
export interface CatalogLimits {
  /** Sum of the stored sizes of all blobs. */
  readonly storedBytesMax: number | undefined;
  readonly quotas: readonly Quota[];
}

/** What is stored below the prefix of a quota. */
export interface QuotaUsage {
  readonly quota: Quota;
  readonly files: number;
  readonly logicalBytes: number;
}

/** What a change adds; negative for what it removes. */
export interface UsageChange {
  readonly name: FileName;
  readonly files: number;
  readonly logicalBytes: number;
  readonly storedBytes: number;
}

interface Counted extends QuotaUsage {
  files: number;
  logicalBytes: number;
  /** What admitted changes add until they are made; what they remove is not counted. */
  pendingFiles: number;
  pendingBytes: number;
}

/**
 * The capacity that is left below the limits of a catalog, in the memory of the process that makes all changes.
 *
 * Invariant: the counts are those of the catalog after the changes that were made, and a change is admitted only if they
 * stay within the limits with it and with everything admitted but not made yet. So the limits hold exactly, however many
 * processes request changes. A process that becomes the leader counts again: about a second for a million names, which
 * only stores with quotas pay.
 */
export class Capacity {
  readonly #limits: CatalogLimits;
  readonly #counted: readonly Counted[];
  #pendingStoredBytes = 0;

  constructor(limits: CatalogLimits) {
    this.#limits = limits;
    this.#counted = limits.quotas.map((quota) => ({
      quota,
      files: 0,
      logicalBytes: 0,
      pendingFiles: 0,
      pendingBytes: 0,
    }));
  }

  /** Counts what is stored, in one pass for all quotas. */
  static async of(limits: CatalogLimits, reader: CatalogReader): Promise<Capacity> {
    const capacity = new Capacity(limits);
    if (limits.quotas.length > 0) {
      for await (const batch of reader.listEntries('/')) {
        for (const { name, logicalSize } of batch) {
          capacity.add({ name, files: 1, logicalBytes: logicalSize, storedBytes: 0 });
        }
      }
    }
    return capacity;
  }

  get usages(): readonly QuotaUsage[] {
    return this.#counted;
  }

  /** Counts a change that was made. */
  add({ name, files, logicalBytes }: UsageChange): void {
    for (const counted of this.#counted) {
      if (!covers(counted.quota.prefix, name)) continue;
      counted.files += files;
      counted.logicalBytes += logicalBytes;
    }
  }

  /**
   * Admits a change; `made` or `givenUp` must follow. Returns the limit that forbids it, in words, or `undefined`.
   * @param stored the stored bytes of all blobs now, and those that the client offers, even if they are stored already.
   */
  admit(
    change: UsageChange,
    stored: { readonly bytes: number; readonly offered?: number },
  ): string | undefined {
    const { storedBytesMax = Infinity } = this.#limits;
    const neededBytes = Math.max(change.storedBytes, stored.offered ?? 0);
    if (neededBytes > 0 && stored.bytes + this.#pendingStoredBytes + neededBytes > storedBytesMax) {
      return `the store is limited to ${storedBytesMax} bytes`;
    }
    for (const { quota, files, logicalBytes, pendingFiles, pendingBytes } of this.#counted) {
      if (!covers(quota.prefix, change.name)) continue;
      const { filesMax = Infinity, logicalBytesMax = Infinity } = quota;
      if (change.files > 0 && files + pendingFiles + change.files > filesMax) {
        return `"${quota.prefix}" holds its maximum of ${filesMax} files`;
      }
      if (change.logicalBytes > 0 && logicalBytes + pendingBytes + change.logicalBytes > logicalBytesMax) {
        return `"${quota.prefix}" would exceed its maximum of ${logicalBytesMax} bytes`;
      }
    }
    this.#pend(change, 1);
    return undefined;
  }

  /** The admitted change is made. */
  made(change: UsageChange): void {
    this.#pend(change, -1);
    this.add(change);
  }

  /** The admitted change is not made. */
  givenUp(change: UsageChange): void {
    this.#pend(change, -1);
  }

  #pend(change: UsageChange, sign: 1 | -1): void {
    this.#pendingStoredBytes += sign * change.storedBytes;
    for (const counted of this.#counted) {
      if (!covers(counted.quota.prefix, change.name)) continue;
      counted.pendingFiles += sign * Math.max(0, change.files);
      counted.pendingBytes += sign * Math.max(0, change.logicalBytes);
    }
  }
}

function covers(prefix: string, name: FileName): boolean {
  if (prefix === '/') return true;
  return name.startsWith(prefix) && (name.length === prefix.length || name.charAt(prefix.length) === '/');
}
