import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { Client } from '../../src/client/client.ts';
import { isFiletrackerError } from '../../src/core/errors.ts';
import { servedStore } from '../support/client-server.ts';
import type { CacheChildOrder } from '../support/proof/cache-child.ts';
import { cachedContent, cachedFiles, cacheSizeBytes, cacheVersions } from '../support/proof/cache-files.ts';
import { builtProgram, killGroup, startNode } from '../support/proof/child-program.ts';
import { Random } from '../support/proof/random.ts';
import { RecorderControl, recorderMissing } from '../support/proof/recorder.ts';
import { proofSeed, reportKills, scaled } from '../support/proof/scale.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const missing = recorderMissing();
if (missing !== undefined) console.warn(`Crashes of the cache are not tested: ${missing}`);

/** Each target is whole: one of the versions of its file. */
function checkTargets(targets: string): void {
  for (const name of readdirSync(targets)) {
    const match = /^t\d+-f(\d+)$/.exec(name);
    if (match === null) continue;
    const bytes = readFileSync(join(targets, name));
    const versions = Array.from({ length: cacheVersions }, (_, at) =>
      cachedContent(Number(match[1]), at + 1),
    );
    expect(
      versions.some((version) => version.equals(bytes)),
      `${name}, ${bytes.length} bytes`,
    ).toBe(true);
  }
}

/** Whatever the cache has is right, without the server. */
async function checkOffline(cacheDir: string, place: string): Promise<number> {
  await using client = new Client({ cacheDir, offline: true, cacheSize: cacheSizeBytes, cacheMinFree: 0 });
  let served = 0;
  for (let file = 0; file < cachedFiles; file += 1) {
    for (let version = 1; version <= cacheVersions; version += 1) {
      const target = join(place, 'offline');
      try {
        await client.getFile(`/cached/f${file}@${version}`, target);
      } catch (error) {
        expect(isFiletrackerError(error), String(error)).toBe(true);
        continue;
      }
      served += 1;
      expect(readFileSync(target).equals(cachedContent(file, version)), `f${file}@${version}`).toBe(true);
    }
  }
  return served;
}

describe.runIf(missing === undefined)(
  `crash of the cache, seed ${proofSeed}`,
  { timeout: scaled(60_000, 1_800_000) },
  () => {
    it('leaves a cache that works, with nothing wrong in it', async () => {
      const place = await temporaryFolder();
      const targets = join(place, 'targets');
      const cacheDir = join(place, 'cache');
      mkdirSync(targets);
      const { url } = await servedStore();
      await using writer = new Client({ remoteUrl: url });
      let newest = 0;
      const publish = async (): Promise<void> => {
        newest += 1;
        for (let file = 0; file < cachedFiles; file += 1) {
          await writer.putStream(`/cached/f${file}@${newest}`, Readable.from([cachedContent(file, newest)]));
        }
      };
      const control = new RecorderControl(join(place, 'control'));
      const program = await builtProgram('./cache-child.ts');
      const random = new Random(`${proofSeed}-cache`);
      const kills = scaled(6, 200);
      let killed = 0;
      let served = 0;
      for (let life = 0; life < kills; life += 1) {
        if (life * cacheVersions >= newest * kills) await publish();
        const order: CacheChildOrder = { url, cacheDir, targets, seed: `${proofSeed}-${life}` };
        const byStep = random.chance(0.8);
        control.killAt(byStep ? control.changes + 1 + random.below(250) : 0, { torn: random.chance(0.3) });
        const { child, ended } = startNode([program, JSON.stringify(order)], control.environment(place));
        if (!byStep) {
          await delay(150 + random.below(250));
          killGroup(child);
        }
        const { signal, errors } = await ended;
        control.killAt(0);
        expect(errors, `life ${life}`).toBe('');
        if (signal === 'SIGKILL') killed += 1;
        checkTargets(targets);
        served += await checkOffline(cacheDir, place);
      }
      await using client = new Client({
        remoteUrl: url,
        cacheDir,
        cacheSize: cacheSizeBytes,
        cacheMinFree: 0,
      });
      for (let file = 0; file < cachedFiles; file += 1) {
        const target = join(place, 'online');
        const { version } = await client.getFile(`/cached/f${file}`, target);
        expect(version).toBe(cacheVersions);
        expect(readFileSync(target).equals(cachedContent(file, cacheVersions))).toBe(true);
      }
      control.close();
      expect(killed).toBeGreaterThan(0);
      expect(served).toBeGreaterThan(0);
      const text = `of a client, ${served} cached files read after them; all right`;
      reportKills('crash of the cache', killed, text);
    });
  },
);
