import { cpuUsage } from 'node:process';

/** The longest input that a peer can send in one header block. */
export const nastySizeBytes = 16 * 1024;
/** Processor time that one input may cost. */
const costMaxMs = 5;

/** What a parser steps over, or tries again from: blanks, digits, separators, escapes. */
const units = ' |\t|0|a|/|/.|,|, |;|=|&|&a=|%|%61|-|.|:|"|"",|@1|*|*a|[|[]|1K|\u00e9|{"a":'.split('|');
/** The end of a near miss: matches almost everything before it, and then nothing. */
const nearMiss = '\u0001x';
const cutsMax = 6;

function* cutsOf(sample: string): Generator<number> {
  const step = Math.max(1, Math.ceil(sample.length / cutsMax));
  for (let cut = 0; cut <= sample.length; cut += step) yield cut;
  if (sample.length % step !== 0) yield sample.length;
}

/**
 * Long inputs that resemble a good one: up to some place the same, then one to three of its letters, or what parsers
 * step over, again and again; ended as the good one is, or by what fits nowhere.
 */
export function* nastyInputs(sample: string, sizeBytes: number): Generator<string> {
  for (const cut of cutsOf(sample)) {
    const head = sample.slice(0, cut);
    const tail = sample.slice(cut);
    const own = [1, 2, 3].filter((width) => width <= cut).map((width) => head.slice(-width));
    for (const unit of new Set([...own, ...units])) {
      const pumped = head + unit.repeat(Math.max(1, Math.floor((sizeBytes - sample.length) / unit.length)));
      yield pumped + tail;
      yield pumped + nearMiss;
    }
  }
}

function costMs(run: () => void): number {
  const before = cpuUsage();
  run();
  const { user, system } = cpuUsage(before);
  return (user + system) / 1000;
}

const triesMax = 25;

/**
 * The input of those given that costs more than it may, beginning with short ones: a pattern that takes a short input
 * too long never sees a long one. Undefined if there is none.
 */
export function tooDear(samples: readonly string[], parse: (text: string) => unknown): string | undefined {
  for (const sizeBytes of [512, nastySizeBytes]) {
    for (const sample of samples) {
      for (const input of nastyInputs(sample, sizeBytes)) {
        // Other threads of this process, and compiling, are not the parser's: the least of several tries counts.
        let leastMs = Number.POSITIVE_INFINITY;
        for (let tries = 0; tries < triesMax && leastMs >= costMaxMs; tries += 1) {
          leastMs = Math.min(
            leastMs,
            costMs(() => void parse(input)),
          );
        }
        if (leastMs >= costMaxMs)
          return `${leastMs} ms for ${sizeBytes} bytes like ${JSON.stringify(input.slice(0, 100))}`;
      }
    }
  }
  return undefined;
}
