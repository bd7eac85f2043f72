import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { listSegments } from '../../src/catalog/journal/segment.ts';
import { childrenOf, serverWithShortSegments, startNode } from '../support/proof/child-program.ts';
import { HttpStore } from '../support/proof/http-store.ts';
import { Random } from '../support/proof/random.ts';
import { RecorderControl, recorderMissing } from '../support/proof/recorder.ts';
import { fullProof, proofSeed, reportKills, scaled } from '../support/proof/scale.ts';
import { ServerLoad } from '../support/proof/server-load.ts';
import { ServerProgram } from '../support/proof/server-program.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const missing = recorderMissing();
if (missing !== undefined)
  console.warn(`Crashes of the server at numbered I/O steps are not tested: ${missing}`);

describe.runIf(missing === undefined)(
  `crash of the server, seed ${proofSeed}`,
  { timeout: scaled(120_000, 1_800_000) },
  () => {
    it('loses nothing that was acknowledged when the server with all its workers is killed', async () => {
      const seed = `${proofSeed}-server`;
      const random = new Random(seed);
      const place = await temporaryFolder();
      const folder = join(place, 'store');
      const control = new RecorderControl(join(place, 'control'));
      const store = new HttpStore(0);
      const load = new ServerLoad(store, random, { reads: 0.2 });
      const program = await serverWithShortSegments();
      const target = join(place, 'backup');
      const kills = scaled(4, 240);
      let killed = 0;
      let backups = 0;
      for (let life = 0; life <= kills; life += 1) {
        const step = control.changes + 1 + random.below(60);
        // Some die while they start.
        const early = life > 0 && random.chance(0.15);
        control.killAt(early ? step : 0, { torn: random.chance(0.3), group: true });
        const environment = control.environment(folder);
        const workers = 1 + random.below(2);
        const server = await ServerProgram.start({ folder, workers, environment, program });
        if (server === undefined) {
          expect(early, `seed ${seed}, life ${life}: the server does not start`).toBe(true);
          killed += 1;
          continue;
        }
        store.port = server.port;
        const checked = await load.check().catch((error: unknown) => error);
        if (early && (await Promise.race([server.ended, delay(500)])) !== undefined) {
          killed += 1;
          continue;
        }
        expect(checked, `seed ${seed}, life ${life}`).toBeUndefined();
        const byStep = random.chance(0.6);
        control.killAt(0);
        if (byStep) control.killAt(control.changes + 1 + random.below(400), { torn: true, group: true });
        const stopping = new AbortController();
        const running = load.run(stopping.signal);
        const backup = random.chance(0.25)
          ? startNode([program, 'backup', folder, target, '-s'], {})
          : undefined;
        await Promise.race([server.ended, delay(byStep ? 3000 : 50 + random.below(400))]);
        await server.kill();
        killed += 1;
        stopping.abort();
        await running;
        if (backup === undefined) continue;
        // The server may die beside it; the backup does not.
        expect(await backup.ended, `seed ${seed}, life ${life}`).toMatchObject({ code: 0, errors: '' });
        backups += 1;
      }
      const segments = await listSegments(join(folder, 'journal'));
      const compacted = (segments.at(-1) ?? 0) - segments.length;
      expect(await startNode([program, 'backup', folder, target, '-s'], {}).ended).toMatchObject({ code: 0 });
      const served = await ServerProgram.start({ folder: target, workers: 1, program });
      store.port = served?.port ?? 0;
      await load.check();
      await served?.kill();
      store.close();
      control.close();
      expect(load.acknowledged).toBeGreaterThan(kills);
      if (fullProof) expect(compacted).toBeGreaterThan(0);
      const text = `of the server, ${load.acknowledged} changes acknowledged and ${load.checked} reads, ${compacted} segments compacted away, ${backups} backups beside; nothing lost`;
      reportKills('crash of the server', killed, text);
    });

    it('forgets no connection that is on its way to a worker that dies', async () => {
      const folder = join(await temporaryFolder(), 'store');
      const server = await ServerProgram.start({ folder, workers: 1 });
      const pid = server?.child.pid ?? 0;
      const [worker = 0] = childrenOf(pid);
      process.kill(worker, 'SIGSTOP');
      const clients = Array.from({ length: 6 }, () => new HttpStore(server?.port ?? 0, { timeoutMs: 8000 }));
      const asked = clients.map((client) =>
        client.get('/a').then(
          ({ status }) => String(status),
          (error: unknown) => String(error),
        ),
      );
      await delay(300);
      process.kill(worker, 'SIGKILL');
      const answers = await Promise.all(asked);
      for (const client of clients) client.close();
      // The one that the worker had may be cut; the others waited for the next worker.
      expect(
        answers.filter(
          (answer) => answer !== '404' && !answer.includes('ECONNRESET') && !answer.includes('hang up'),
        ),
      ).toEqual([]);
      expect(answers.filter((answer) => answer === '404').length).toBeGreaterThanOrEqual(4);
    });
  },
);
