import { constants, createWriteStream, openSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { fromLocalError } from './local-errors.ts';

/** Writes a content into a device, pipe or socket, which no rename may replace. */
export async function streamTo(stream: Readable, target: string): Promise<void> {
  try {
    await pipeline(stream, createWriteStream(target, { fd: openSync(target, constants.O_WRONLY) }));
  } catch (error) {
    throw fromLocalError(error, `write "${target}"`);
  }
}
