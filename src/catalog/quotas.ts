import type { FileName } from '../core/file-name.ts';

/** Bounds on the names below a directory. */
export interface Quota {
  /** "/" or a directory without a slash at the end; a file of that very name counts too. */
  readonly prefix: string;
  /** Sum of the sizes before compression, each name counted. */
  readonly logicalBytesMax: number | undefined;
  readonly filesMax: number | undefined;
}

/** How much a catalog may take in. */
export interface CatalogLimits {
  /** Of all blobs as they are stored. */
  readonly storedBytesMax: number | undefined;
  readonly quotas: readonly Quota[];
}

/** What lies below the prefix of a quota. */
export interface QuotaUsage {
  readonly quota: Quota;
  readonly files: number;
  readonly logicalBytes: number;
}

/** What a change adds under its name; negative where it takes away. */
export interface UsageChange {
  readonly name: FileName;
  readonly files: number;
  readonly logicalBytes: number;
}

interface Counted {
  readonly quota: Quota;
  files: number;
  logicalBytes: number;
  /** Of changes that are decided but not made yet; only what they add, so that it errs to the safe side. */
  pendingFiles: number;
  pendingBytes: number;
}

/**
 * Counts what lies below the prefixes of quotas, in the memory of the process that makes all changes.
 *
 * Invariant: the counts are those of the catalog after the changes that were made, and a change is admitted only
 * if they stay within the quotas with it and with all that is admitted but not made yet. So quotas hold exactly,
 * however many processes ask for changes. They are counted anew when another process takes over: about a second
 * for a million names, which only stores with quotas pay.
 */
export class QuotaBook {
  readonly #counted: readonly Counted[];

  constructor(quotas: readonly Quota[]) {
    this.#counted = quotas.map((quota) => ({
      quota,
      files: 0,
      logicalBytes: 0,
      pendingFiles: 0,
      pendingBytes: 0,
    }));
  }

  get usages(): readonly QuotaUsage[] {
    return this.#counted;
  }

  /** Counts what is there, or was made. */
  add(change: UsageChange): void {
    for (const counted of this.#counted) {
      if (!covers(counted.quota.prefix, change.name)) continue;
      counted.files += change.files;
      counted.logicalBytes += change.logicalBytes;
    }
  }

  /** Why a change must not be made, in words; undefined where it may, and is then to be made or given up. */
  admit(change: UsageChange): string | undefined {
    for (const counted of this.#counted) {
      const { quota, files, logicalBytes, pendingFiles, pendingBytes } = counted;
      if (!covers(quota.prefix, change.name)) continue;
      const { filesMax = Infinity, logicalBytesMax = Infinity } = quota;
      if (change.files > 0 && files + pendingFiles + change.files > filesMax) {
        return `"${quota.prefix}" holds the ${filesMax} files that it may`;
      }
      if (change.logicalBytes > 0 && logicalBytes + pendingBytes + change.logicalBytes > logicalBytesMax) {
        return `"${quota.prefix}" would hold more than the ${logicalBytesMax} bytes that it may`;
      }
    }
    this.#pend(change, 1);
    return undefined;
  }

  /** The change that was admitted is made. */
  made(change: UsageChange): void {
    this.#pend(change, -1);
    this.add(change);
  }

  /** The change that was admitted is not made. */
  givenUp(change: UsageChange): void {
    this.#pend(change, -1);
  }

  #pend(change: UsageChange, sign: 1 | -1): void {
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
