import { cpSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseFileName } from '../../src/core/file-name.ts';
import { makeFolderDurably } from '../../src/fs/folders.ts';
import { programPath, startNode } from '../support/proof/child-program.ts';
import { contentOf } from '../support/proof/history.ts';
import { attemptsOf, knownFiles, makeLegacyFolder, makePlainFolder } from '../support/proof/known-files.ts';
import { openProofStore } from '../support/proof/proof-store.ts';
import { Random } from '../support/proof/random.ts';
import { RecorderControl, recorderMissing } from '../support/proof/recorder.ts';
import { fullProof, proofSeed, reportKills } from '../support/proof/scale.ts';
import { checkStore } from '../support/proof/store-check.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const missing = recorderMissing();
if (missing !== undefined) console.warn(`Crashes of maintenance at each step are not tested: ${missing}`);

const files = knownFiles(7);
const server = programPath('filetracker-server.cjs');
const migrate = programPath('filetracker-migrate.js');

/** A program that fills or mends a folder. */
interface Task {
  readonly name: string;
  /** Makes what the program works from, once. */
  readonly prepare: (source: string) => Promise<void>;
  readonly args: (source: string, target: string) => readonly string[];
  /** The target is a copy of what was prepared. */
  readonly inPlace?: boolean;
  /** What it says when it was killed after its last change, and is run again. */
  readonly doneAlready?: string;
}

async function makeStore(folder: string): Promise<void> {
  await makeFolderDurably(folder);
  await using store = await openProofStore(folder);
  for (const { name, version, content } of files) {
    const intent = { name: parseFileName(name), version, claims: {} };
    await store.files.put(intent, { source: contentOf(content), encoding: 'identity' });
  }
}

async function runWell(args: readonly string[]): Promise<void> {
  expect(await startNode(args, {}).ended).toMatchObject({ code: 0, errors: '' });
}

const tasks: readonly Task[] = [
  {
    name: 'filetracker-server backup',
    prepare: makeStore,
    args: (source, target) => [server, 'backup', source, target, '-s'],
  },
  {
    name: 'filetracker-server restore',
    prepare: async (source) => {
      await makeStore(`${source}-store`);
      await runWell([server, 'backup', `${source}-store`, source, '-s']);
    },
    args: (source, target) => [server, 'restore', source, target, '-s'],
    doneAlready: 'it is not empty',
  },
  {
    name: 'filetracker-server move',
    prepare: makeStore,
    args: (source, target) => [server, 'move', '--from', source, '--to', target, '-s'],
  },
  {
    name: 'filetracker-migrate --adopt',
    prepare: async (source) => makeLegacyFolder(source, files),
    args: (source, target) => [migrate, '--adopt', source, target, '-s'],
  },
  {
    name: 'filetracker-migrate --adopt-1x',
    prepare: async (source) => makePlainFolder(source, files),
    args: (source, target) => [migrate, '--adopt-1x', source, target, '-s'],
  },
  {
    name: 'filetracker-recover',
    prepare: async (source) => {
      await makeStore(source);
      rmSync(join(source, 'catalog'), { recursive: true });
    },
    args: (_source, target) => [programPath('filetracker-recover.js'), target, '-s'],
    inPlace: true,
  },
];

/** Files that were on their way into a folder. */
function leftOver(folder: string): string[] {
  const all = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  return all.filter((name) => name.endsWith('.temporary') || /(?:^uploads\/.|scratch)/.test(name));
}

/** The numbers of the changes to die at: all, or one. */
function stepsOf(random: Random): readonly number[] {
  if (fullProof) return Array.from({ length: 1000 }, (_, index) => index + 1);
  return random.chance(0.5) ? [1 + random.below(12)] : [13 + random.below(60)];
}

describe.runIf(missing === undefined)(
  `crash of maintenance at each step, seed ${proofSeed}`,
  { timeout: fullProof ? 1_800_000 : 120_000 },
  () => {
    it.for(tasks)('$name ends whole when it is run again', async (task) => {
      const random = new Random(`${proofSeed}-${task.name}`);
      const place = await temporaryFolder();
      const source = join(place, 'source');
      const control = new RecorderControl(join(place, 'control'));
      await task.prepare(source);
      let killed = 0;
      for (const step of stepsOf(random)) {
        const target = join(place, 'target');
        if (task.inPlace) cpSync(source, target, { recursive: true });
        const environment = control.environment(target);
        const args = task.args(source, target);
        const what = `${task.name} killed at change ${step}`;
        control.killAt(control.changes + step, { torn: random.chance(0.5) });
        const { signal, code } = await startNode(args, environment).ended;
        control.killAt(0);
        if (signal === 'SIGKILL') killed += 1;
        else expect(code, what).toBe(0);
        const next = await startNode(args, environment).ended;
        const done = task.doneAlready !== undefined && next.errors.includes(task.doneAlready);
        if (!done) expect(next, what).toMatchObject({ code: 0, errors: '' });
        await checkStore(target, attemptsOf(files)).catch((error: unknown) => {
          throw new Error(`${what}: ${String(error)}`, { cause: error });
        });
        // The store was opened for changes, as a server does it.
        expect(leftOver(target), what).toEqual([]);
        rmSync(target, { recursive: true });
        // It has ended by itself: all its changes were tried.
        if (signal !== 'SIGKILL') break;
      }
      control.close();
      reportKills(
        `crash of ${task.name.replace('filetracker-', '')}`,
        killed,
        'at each of its changes; whole when it is run again',
      );
    });
  },
);
