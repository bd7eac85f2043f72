import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { programPath, startNode } from '../support/proof/child-program.ts';
import { contentDigest, contentOf } from '../support/proof/history.ts';
import { HttpStore } from '../support/proof/http-store.ts';
import { knownFiles, makeLegacyFolder, type KnownFile } from '../support/proof/known-files.ts';
import { Random } from '../support/proof/random.ts';
import { RecorderControl, recorderMissing } from '../support/proof/recorder.ts';
import { proofSeed, reportKills, scaled } from '../support/proof/scale.ts';
import { ServerLoad } from '../support/proof/server-load.ts';
import { ServerProgram } from '../support/proof/server-program.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const missing = recorderMissing();
if (missing !== undefined) console.warn(`Crashes of adoption and backup are not tested: ${missing}`);

/** Every file is there, and nothing else. */
async function expectFiles(store: HttpStore, files: readonly KnownFile[]): Promise<void> {
  const found = (await store.list()).map(({ name, version, digest }) => `${name} ${version} ${digest}`);
  const wanted = files.map(({ name, version, content }) => `${name} ${version} ${contentDigest(content)}`);
  expect(found.sort()).toEqual(wanted.sort());
  for (const { name, content } of files) {
    const answer = await store.get(name);
    expect(answer.body.equals(contentOf(content)), name).toBe(true);
  }
}

describe.runIf(missing === undefined)(
  `crash of maintenance, seed ${proofSeed}`,
  { timeout: scaled(120_000, 1_800_000) },
  () => {
    it('adopts an old folder whole, however often the server dies of it', async () => {
      const random = new Random(`${proofSeed}-adopt`);
      const files = knownFiles(40);
      const rounds = scaled(1, 12);
      let killed = 0;
      for (let round = 0; round < rounds; round += 1) {
        const place = await temporaryFolder();
        const folder = join(place, 'old');
        await makeLegacyFolder(folder, files);
        const control = new RecorderControl(join(place, 'control'));
        const environment = control.environment(folder);
        for (let life = 0; life < scaled(2, 4); life += 1) {
          control.killAt(control.changes + 1 + random.below(60), { torn: random.chance(0.3), group: true });
          const server = await ServerProgram.start({ folder, workers: 1, environment });
          await server?.kill();
          killed += 1;
        }
        control.killAt(0);
        const server = await ServerProgram.start({ folder, workers: 1, environment });
        const store = new HttpStore(server?.port ?? 0);
        onTestFinished(() => store.close());
        await expectFiles(store, files);
        await server?.stop();
        control.close();
      }
      reportKills('crash of adoption', killed, 'of a server that adopted an old folder; every file there');
    });

    it('ends with a whole backup, however often one is killed, while the store changes', async () => {
      const random = new Random(`${proofSeed}-backup`);
      const place = await temporaryFolder();
      const folder = join(place, 'store');
      const target = join(place, 'backup');
      const server = await ServerProgram.start({ folder, workers: 2 });
      const store = new HttpStore(server?.port ?? 0);
      onTestFinished(() => store.close());
      const load = new ServerLoad(store, random);
      const control = new RecorderControl(join(place, 'control'));
      const environment = control.environment(target);
      const args = [programPath('filetracker-server.cjs'), 'backup', folder, target, '-s'];
      const kills = scaled(2, 60);
      let killed = 0;
      for (let life = 0; life < kills; life += 1) {
        control.killAt(control.changes + 1 + random.below(50), { torn: random.chance(0.3) });
        const stopping = new AbortController();
        const running = load.run(stopping.signal, { pauseMs: 2 });
        const { errors, signal } = await startNode(args, environment).ended;
        expect(errors, `life ${life}`).toBe('');
        if (signal === 'SIGKILL') killed += 1;
        stopping.abort();
        await running;
      }
      control.killAt(0);
      await load.check();
      const last = await startNode(args, environment).ended;
      expect(last).toMatchObject({ code: 0, errors: '' });
      await server?.kill();
      const served = await ServerProgram.start({ folder: target, workers: 1 });
      store.port = served?.port ?? 0;
      await load.check();
      await served?.stop();
      control.close();
      reportKills('crash of backup', killed, 'of a backup while the store changed; the next one is whole');
    });
  },
);
