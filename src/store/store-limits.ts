import * as limits from '../core/limits.ts';

/** The bounds of a file store that a flag may set; see core/limits.ts. */
export interface StoreLimits {
  readonly fileSizeMaxBytes: number;
  /** Of all contents as they are stored; infinite where there is no such bound. The catalog keeps it. */
  readonly storedBytesMax: number;
  /** Names in the store; the same. */
  readonly entriesMax: number;
  readonly bufferedBodyMaxBytes: number;
  readonly bufferedBodiesTotalMaxBytes: number;
  readonly decodingRatioMax: number;
  readonly decodingRatioFreeBytes: number;
  readonly readCacheSizeBytes: number;
  /** 1 (fast) to 9 (small), for bodies that come plain. */
  readonly compressionLevel: number;
}

export const defaultStoreLimits: StoreLimits = {
  fileSizeMaxBytes: limits.fileSizeMaxBytes,
  storedBytesMax: Number.POSITIVE_INFINITY,
  entriesMax: Number.POSITIVE_INFINITY,
  bufferedBodyMaxBytes: limits.bufferedBodyMaxBytes,
  bufferedBodiesTotalMaxBytes: limits.bufferedBodiesTotalMaxBytes,
  decodingRatioMax: limits.decodingRatioMax,
  decodingRatioFreeBytes: limits.decodingRatioFreeBytes,
  readCacheSizeBytes: limits.readCacheSizeBytes,
  compressionLevel: limits.compressionLevel,
};
