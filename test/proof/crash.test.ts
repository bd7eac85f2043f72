import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { builtProgram, killGroup, startNode } from '../support/proof/child-program.ts';
import { readHistory } from '../support/proof/history.ts';
import { Random } from '../support/proof/random.ts';
import { RecorderControl, recorderMissing } from '../support/proof/recorder.ts';
import { proofSeed, reportKills, scaled } from '../support/proof/scale.ts';
import { StoreChecker } from '../support/proof/store-checker.ts';
import type { StoreChildOrder } from '../support/proof/store-child.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const missing = recorderMissing();
if (missing !== undefined) console.warn(`Crashes at numbered I/O steps are not tested: ${missing}`);

/** Lives and deaths of one store; gives how many of the deaths were ours. */
async function killAgainAndAgain(seed: string, kills: number): Promise<number> {
  const random = new Random(seed);
  const place = await temporaryFolder();
  const folder = join(place, 'store');
  mkdirSync(folder);
  const control = new RecorderControl(join(place, 'control'));
  const history = join(place, 'history');
  const program = await builtProgram('./store-child.ts');
  using checker = await StoreChecker.start(history);
  let killed = 0;
  for (let life = 0; life < kills; life += 1) {
    const order: StoreChildOrder = {
      folder,
      control: control.path,
      history,
      seed: `${seed}-${life}`,
      sessions: [60, 400],
      clients: 4,
      firstId: readHistory(history).length + 1,
    };
    const step = control.changes + 1 + random.below(random.chance(0.3) ? 40 : 700);
    const byStep = random.chance(0.85);
    control.killAt(byStep ? step : 0, { torn: random.chance(0.3), group: true });
    const { child, ended } = startNode([program, JSON.stringify(order)], control.environment(folder));
    if (!byStep) {
      await delay(150 + random.below(300));
      killGroup(child);
    }
    const { signal, code, errors } = await ended;
    control.killAt(0);
    expect(errors, `seed ${seed}, life ${life}`).toBe('');
    if (signal === 'SIGKILL') killed += 1;
    else expect(code).toBe(0);
    const problem = await checker.check(folder);
    expect(problem, `seed ${seed}, life ${life}`).toBeUndefined();
  }
  control.close();
  return killed;
}

describe.runIf(missing === undefined)(
  `crash, seed ${proofSeed}`,
  { timeout: scaled(120_000, 1_800_000) },
  () => {
    it('loses nothing that was acknowledged when a process dies at any step', async () => {
      let killed = 0;
      const stores = scaled(1, 10);
      for (let store = 0; store < stores; store += 1) {
        killed += await killAgainAndAgain(`${proofSeed}-${store}`, scaled(7, 40));
      }
      expect(killed).toBeGreaterThan(0);
      reportKills('crash of the store', killed, 'at numbered I/O steps and random instants; nothing lost');
    });
  },
);
