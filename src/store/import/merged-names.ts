import type { FileName } from '../../core/file-name.ts';
import { listBatchNames } from '../../core/limits.ts';
import type { ListOptions } from '../file-store.ts';

/**
 * The names of two sources, each once, in byte order. The names here are sorted; those of the old server come in any order
 * and are held in memory: hundreds of megabytes for a directory of millions, as long as files are being imported.
 */
export async function* mergedNames(
  here: AsyncIterable<readonly FileName[]>,
  there: () => AsyncIterable<FileName>,
  options: ListOptions,
): AsyncGenerator<readonly FileName[], void, void> {
  const { after, limit = Infinity } = options;
  const old: FileName[] = [];
  for await (const name of there()) if (after === undefined || compare(name, after) > 0) old.push(name);
  old.sort(compare);
  let batch: FileName[] = [];
  let left = limit;
  for await (const name of merged(here, old)) {
    if (left <= 0) break;
    left -= 1;
    batch.push(name);
    if (batch.length < listBatchNames) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}

async function* merged(
  here: AsyncIterable<readonly FileName[]>,
  old: readonly FileName[],
): AsyncGenerator<FileName, void, void> {
  let at = 0;
  for await (const batch of here) {
    for (const name of batch) {
      for (let next = old[at]; next !== undefined && compare(next, name) <= 0; next = old[at]) {
        if (next !== name) yield next;
        at += 1;
      }
      yield name;
    }
  }
  yield* old.slice(at);
}

/** As UTF-8 bytes compare. */
function compare(one: string, other: string): number {
  return Buffer.compare(Buffer.from(one), Buffer.from(other));
}
