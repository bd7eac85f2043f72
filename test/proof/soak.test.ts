import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { readCacheSizeBytes } from '../../src/core/limits.ts';
import { childrenOf, programPath } from '../support/proof/child-program.ts';
import { HttpStore } from '../support/proof/http-store.ts';
import { Random } from '../support/proof/random.ts';
import { proofSeed, reportFigure, scaled } from '../support/proof/scale.ts';
import { ServerLoad, type LoadRequest } from '../support/proof/server-load.ts';
import { ServerProgram } from '../support/proof/server-program.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

/** `FILETRACKER_SOAK_SECONDS=3600 npm run test:proof -- soak` is the hour. */
const soakMs = Number(process.env['FILETRACKER_SOAK_SECONDS'] ?? scaled(6, 120)) * 1000;
/** Warming up, and again measuring what the server can do. */
const startMs = Math.min(soakMs / 10, 60_000);
/** Read caches of two workers, which a short run does not fill before it is measured: see `core/limits.ts`. */
const cachesBytes = soakMs >= 600_000 ? 0 : 2 * readCacheSizeBytes;
const share = 0.7;
const slices = 10;
/** Three quarters of the requests read, as its users do. */
const loadOptions = { clients: 16, files: soakMs >= 600_000 ? 200 : 20, reads: 0.75 };

interface Slice {
  readonly memoryBytes: number;
  readonly descriptors: number;
  readonly requests: number;
  readonly medianMs: number;
  readonly slowMs: number;
}

/** Memory that is not that of files, and descriptors, of a server's processes. */
function resources(pid: number): { readonly memoryBytes: number; readonly descriptors: number } {
  let memoryBytes = 0;
  let descriptors = 0;
  for (const process of [pid, ...childrenOf(pid)]) {
    const status = readFileSync(`/proc/${process}/status`, 'utf8');
    memoryBytes += Number(/RssAnon:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024;
    descriptors += readdirSync(`/proc/${process}/fd`).length;
  }
  return { memoryBytes, descriptors };
}

function percentile(times: readonly number[], part: number): number {
  const sorted = [...times].sort((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0;
}

function mean(numbers: readonly number[]): number {
  return numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
}

const mebibyte = 1024 * 1024;

/** Times of answers, by what was asked for. */
class Answers {
  readonly #times = new Map<LoadRequest, number[]>();

  note(tookMs: number, request: LoadRequest): void {
    const times = this.#times.get(request) ?? [];
    times.push(tookMs);
    this.#times.set(request, times);
  }

  /** All times; they are forgotten. */
  take(): number[] {
    const times = [...this.#times.values()].flat();
    this.#times.clear();
    return times;
  }

  told(): string {
    const kinds = [...this.#times].map(
      ([request, times]) =>
        `${request} ${times.length} p50 ${percentile(times, 0.5).toFixed(1)} p99 ${percentile(times, 0.99).toFixed(1)}`,
    );
    return kinds.sort().join(', ');
  }
}

/** Nothing grows from the first slices to the last. Gives what is worth telling. */
function compareSlices(found: readonly Slice[]): string {
  const told = JSON.stringify(found);
  const of = (some: readonly Slice[], figure: keyof Slice): number =>
    mean(some.map((slice) => slice[figure]));
  const compared = (figure: keyof Slice): readonly [number, number] => [
    of(found.slice(1, 4), figure),
    of(found.slice(-3), figure),
  ];
  const [memoryFirst, memoryLast] = compared('memoryBytes').map((bytes) => bytes / mebibyte) as [
    number,
    number,
  ];
  expect(memoryLast, told).toBeLessThan(memoryFirst * 1.25 + 40 + cachesBytes / mebibyte);
  const [descriptorsFirst, descriptorsLast] = compared('descriptors');
  expect(descriptorsLast, told).toBeLessThan(descriptorsFirst + 20);
  // Others use the machine too, which a few seconds show more of than of us; what grows without end is beyond this soon enough.
  const [medianFirst, medianLast] = compared('medianMs');
  if (soakMs >= 60_000) expect(medianLast, told).toBeLessThan(medianFirst * 4 + 20);
  const [slowFirst, slowLast] = compared('slowMs');
  if (soakMs >= 60_000) expect(slowLast, told).toBeLessThan(slowFirst * 4 + 200);
  return (
    `memory ${memoryFirst.toFixed(0)} then ${memoryLast.toFixed(0)} MiB, ` +
    `descriptors ${descriptorsFirst.toFixed(0)} then ${descriptorsLast.toFixed(0)}, ` +
    `p50 ${medianFirst.toFixed(1)} then ${medianLast.toFixed(1)} ms, ` +
    `p99 ${slowFirst.toFixed(1)} then ${slowLast.toFixed(1)} ms`
  );
}

describe(`soak, seed ${proofSeed}`, { timeout: soakMs + 120_000 }, () => {
  it('is as quick and as small at the end as at the beginning', async () => {
    const folder = join(await temporaryFolder(), 'store');
    const server = await ServerProgram.start({ folder, workers: 2 });
    const store = new HttpStore(server?.port ?? 0);
    onTestFinished(() => store.close());
    const load = new ServerLoad(store, new Random(`${proofSeed}-soak`), loadOptions);
    const answers = new Answers();
    load.onAnswer = (tookMs, request) => answers.note(tookMs, request);
    // What it can do, when everything is warm.
    await load.run(AbortSignal.timeout(startMs));
    answers.take();
    await load.run(AbortSignal.timeout(startMs));
    const capacity = answers.take().length / (startMs / 1000);
    const sliceMs = (soakMs - 2 * startMs) / slices;
    const found: Slice[] = [];
    let lastAnswers = '';
    for (let slice = 0; slice < slices; slice += 1) {
      await load.run(AbortSignal.timeout(sliceMs), { requestsPerSecond: capacity * share });
      if (slice === slices - 1) lastAnswers = answers.told();
      const times = answers.take();
      const [medianMs, slowMs] = [percentile(times, 0.5), percentile(times, 0.99)];
      found.push({ ...resources(server?.child.pid ?? 0), medianMs, slowMs, requests: times.length });
    }
    expect([...load.refusals.keys()], JSON.stringify([...load.refusalTexts])).toEqual([]);
    expect(load.checked).toBeGreaterThan(load.acknowledged);
    await load.check();
    const compared = compareSlices(found);
    expect((await server?.stop())?.code).toBe(0);
    execFileSync(process.execPath, [programPath('filetracker-recover.js'), folder, '-s', '-f', '--dry-run']);
    const requests = found.reduce((sum, slice) => sum + slice.requests, 0);
    const rate = requests / ((sliceMs * slices) / 1000);
    reportFigure(
      'soak',
      `${Math.round(soakMs / 1000)} s, ${requests} requests, ${rate.toFixed(0)} of ${capacity.toFixed(0)} a second, ` +
        `each answer right; slices 2 to 4 of 10, then 8 to 10: ${compared}`,
    );
    reportFigure('soak, last slice', `times in ms: ${lastAnswers}`);
    for (const [index, { memoryBytes, descriptors, requests: made, medianMs, slowMs }] of found.entries()) {
      reportFigure(
        `soak, slice ${index + 1}`,
        `${made} requests, p50 ${medianMs.toFixed(1)} ms, p99 ${slowMs.toFixed(1)} ms, ` +
          `${(memoryBytes / mebibyte).toFixed(0)} MiB, ${descriptors} descriptors`,
      );
    }
  });
});
