// The files that the test of the client's cache is about; both sides of it know them.
import { contentOf } from './history.ts';

export const cacheVersions = 3;
export const cachedFiles = 8;
/** Less than all contents together, so that some are evicted. */
export const cacheSizeBytes = 700_000;

/** The content of a version of a file. */
export function cachedContent(file: number, version: number): Buffer {
  return contentOf(`${[50, 3000, 20_000, 140_000][file % 4]}-cached${file}v${version}`);
}

/** A name that nobody reads, for what is put. */
export function cachedContentName(file: number): string {
  return `/put/f${file}`;
}
