import type { Digest } from './digest.ts';
import { cannot } from './errors.ts';

/** Seconds since 1970 UTC, an integer; may be negative. The newest wins. */
export type FileVersion = number;

/** The years 0001 to 9999, which have a form as HTTP dates. */
export const minVersion: FileVersion = -62_135_596_800;
export const maxVersion: FileVersion = 253_402_300_799;

/** @throws FiletrackerError `invalid-version` unless it is an integer in the years 1 to 9999. */
export function checkVersion(version: number): FileVersion {
  if (Number.isInteger(version) && version >= minVersion && version <= maxVersion) return version;
  throw cannot(
    'invalid-version',
    `use "${version}" as a version`,
    'it must be whole seconds since 1970, in the years 1 to 9999',
  );
}

/** The version of a clock's time, rounded down to a second. */
export function versionFromMs(timeMs: number): FileVersion {
  return checkVersion(Math.floor(timeMs / 1000));
}

const nsPerSecond = 1_000_000_000n;

/**
 * The version of a file on disk: its modification time, rounded down to a second, also before 1970. In nanoseconds,
 * because milliseconds as a double would round the end of a second up. @throws FiletrackerError `invalid-version`.
 */
export function versionFromNs(timeNs: bigint): FileVersion {
  const seconds = timeNs / nsPerSecond;
  return checkVersion(Number(timeNs % nsPerSecond < 0n ? seconds - 1n : seconds));
}

/** What must hold of the entry under a name at the moment of a change. */
export type Precondition =
  /** There is no entry. */
  | { readonly kind: 'absent' }
  /** There is an entry with one of these digests; with any digest if the list is `undefined`. */
  | { readonly kind: 'match'; readonly digests: readonly Digest[] | undefined }
  /** There is no entry with a newer version than this one. */
  | { readonly kind: 'unmodified-since'; readonly version: FileVersion };
