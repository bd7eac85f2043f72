import { asShown } from '../core/shown-text.ts';
import type { ProgressListener, StepCounts } from '../maintenance/progress.ts';
import { isSmartTerminal } from '../core/terminal.ts';

const refreshMs = 200;

/** Shows the steps of a program with these flags; `undefined` if it prints nothing but errors or JSON. */
export function stepsFor(flags: {
  readonly quiet?: boolean | undefined;
  readonly json?: boolean | undefined;
}): ProgressListener | undefined {
  return flags.quiet === true || flags.json === true ? undefined : stepPrinter(process.stderr);
}

/** Prints a line for each step, and on a terminal the progress of the running one. */
function stepPrinter(stream: NodeJS.WriteStream): ProgressListener {
  let title = '';
  let begunMs = 0;
  let shownMs = 0;
  const isSmart = isSmartTerminal(stream);
  const clear = (): void => {
    if (isSmart) stream.write('\r\u001B[K');
  };
  return {
    stepBegun: (_step, text) => {
      title = text;
      begunMs = performance.now();
      if (isSmart) stream.write(`${title} …`);
    },
    stepAdvanced: (done, total) => {
      const nowMs = performance.now();
      if (!isSmart || nowMs - shownMs < refreshMs) return;
      shownMs = nowMs;
      clear();
      stream.write(`${title} … ${progressText(done, total, nowMs - begunMs)}`);
    },
    stepEnded: ({ counts, milliseconds }) => {
      clear();
      stream.write(`${title}: ${countsText(counts)} (${(milliseconds / 1000).toFixed(1)} s)\n`);
    },
  };
}

function progressText(done: number, total: number | undefined, elapsedMs: number): string {
  const rate = elapsedMs > 0 ? Math.round((done / elapsedMs) * 1000) : 0;
  if (total === undefined || total === 0) return `${done}, ${rate}/s`;
  const leftSeconds = rate > 0 ? Math.max(0, Math.round((total - done) / rate)) : 0;
  return `${Math.floor((100 * done) / total)}%, ${rate}/s, ${leftSeconds} s left`;
}

function countsText(counts: StepCounts): string {
  return Object.entries(counts)
    .map(([word, value]) => `${word.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)} ${value}`)
    .join(', ');
}

const shownItemsMax = 100;

/** The lines of a titled list with the first 100 of `count` items; none if there are no items. */
export function titledList(title: string, items: readonly string[], count = items.length): string[] {
  if (count === 0) return [];
  const lines = [
    `${title} (${count}):`,
    ...items.slice(0, shownItemsMax).map((item) => `  ${asShown(item)}`),
  ];
  if (count > shownItemsMax) lines.push(`  … and ${count - shownItemsMax} more; --json lists them`);
  return lines;
}
