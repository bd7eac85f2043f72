import { spawn } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { indexDataFileName } from '../../catalog/lmdb/index/state.ts';
import type { IndexComparison } from '../../catalog/lmdb/index/comparison.ts';

const baseTimeoutMs = 60_000;
/** Slower than any disk that reads an index. */
const leastBytesPerMs = 5000;

/**
 * Runs a filetracker program that compares two indexes (`program --compare-catalogs ONE OTHER`), because a damaged file may
 * make LMDB end the process, or loop for ever. `undefined` if it does.
 */
export async function compareInChild(
  program: string,
  folder: string,
  rebuiltFolder: string,
): Promise<IndexComparison | undefined> {
  const { size } = await stat(join(folder, indexDataFileName));
  const child = spawn(process.execPath, [program, '--compare-catalogs', folder, rebuiltFolder], {
    stdio: ['ignore', 'pipe', 'ignore'],
    timeout: Math.round(baseTimeoutMs + size / leastBytesPerMs),
    killSignal: 'SIGKILL',
  });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', resolve);
  });
  // A child that fails to start rejects before the output is read.
  ended.catch(() => undefined);
  const pieces: Buffer[] = [];
  for await (const piece of child.stdout) pieces.push(piece as Buffer);
  if ((await ended) !== 0) return undefined;
  return JSON.parse(Buffer.concat(pieces).toString()) as IndexComparison;
}
