import { constants, createWriteStream, fstatSync, openSync, WriteStream } from 'node:fs';
import { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { fromLocalError } from '../local-errors.ts';
import type { Target } from './target-file.ts';

/** Writes a content into a device or pipe, which no rename may replace, or into a file that is open. */
export async function streamTo(stream: Readable, target: Exclude<Target, { kind: 'file' }>): Promise<void> {
  try {
    const output = outputTo(target);
    const end = output instanceof WriteStream;
    await pipeline(stream, output, { end });
    // Others may go on writing to a pipe, so it stays open, and only what was given to it is waited for.
    if (!end) await written(output);
  } catch (error) {
    throw fromLocalError(error, `write "${target.path}"`);
  }
}

function written(output: Writable): Promise<void> {
  return new Promise((resolve, reject) => {
    output.write('', (error) => {
      if (error === undefined || error === null) resolve();
      else reject(error);
    });
  });
}

function outputTo(target: Exclude<Target, { kind: 'file' }>): Writable {
  if (target.kind === 'stream') {
    return createWriteStream(target.path, { fd: openSync(target.path, constants.O_WRONLY) });
  }
  const { descriptor } = target;
  if (descriptor === process.stdout.fd) return process.stdout;
  if (descriptor === process.stderr.fd) return process.stderr;
  const attributes = fstatSync(descriptor);
  // A pipe may be set not to block, which a write to a file does not expect.
  if (attributes.isFIFO() || attributes.isSocket()) return new Socket({ fd: descriptor, readable: false });
  return createWriteStream('', { fd: descriptor, autoClose: false });
}
