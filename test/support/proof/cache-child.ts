// A program that gets and puts files through a cache until it is killed.
import { join } from 'node:path';
import { Client } from '../../../src/client/client.ts';
import { isFiletrackerError } from '../../../src/core/errors.ts';
import { cachedContentName, cacheSizeBytes, cacheVersions } from './cache-files.ts';
import { Random } from './random.ts';

export interface CacheChildOrder {
  readonly url: string;
  readonly cacheDir: string;
  readonly targets: string;
  readonly seed: string;
}

const { url, cacheDir, targets, seed } = JSON.parse(process.argv[2] ?? '') as CacheChildOrder;
const random = new Random(seed);

async function work(client: Client): Promise<void> {
  for (let done = 0; done < 40; done += 1) {
    const file = random.below(8);
    const name = `/cached/f${file}${random.chance(0.5) ? `@${1 + random.below(cacheVersions)}` : ''}`;
    const handOut = join(targets, `t${random.below(10)}-f${file}`);
    try {
      await client.getFile(name, handOut, { forceRefresh: random.chance(0.1) });
    } catch (error) {
      // The server has the newest version only; others may be in the cache.
      if (!isFiletrackerError(error, 'not-found')) throw error;
      continue;
    }
    if (random.chance(0.1))
      await client.putFile(`${cachedContentName(file)}@${cacheVersions}`, handOut).catch(() => undefined);
  }
}

await using client = new Client({ remoteUrl: url, cacheDir, cacheSize: cacheSizeBytes, cacheMinFree: 0 });
await Promise.all([work(client), work(client), work(client)]);
