/** One measured figure. Ratios come of two measurements in the same run: machines differ, ratios hold. */
export interface Row {
  /** What was measured, in words a stranger understands. */
  readonly name: string;
  readonly figure: string;
  /** What was asked for, as text; empty where a figure only informs. */
  readonly target: string;
  readonly met: boolean | undefined;
}

export function ratioRow(name: string, ratio: number, target: number, more = ''): Row {
  const figure = `${ratio.toFixed(2)}${more === '' ? '' : ` (${more})`}`;
  return { name, figure, target: `at least ${target}`, met: ratio >= target };
}

export function atMostRow(name: string, value: number, target: number, more = ''): Row {
  const figure = `${value.toFixed(2)}${more === '' ? '' : ` (${more})`}`;
  return { name, figure, target: `at most ${target}`, met: value <= target };
}

/** Prints rows as a Markdown table, ready for docs/. */
export function printTable(title: string, rows: readonly Row[]): void {
  console.log(`\n## ${title}\n\n| what | measured | target | |\n|---|---|---|---|`);
  for (const { name, figure, target, met } of rows) {
    const verdict = met === undefined ? '' : met ? 'met' : 'MISSED';
    console.log(`| ${name} | ${figure} | ${target} | ${verdict} |`);
  }
}

export function perSecond(count: number, milliseconds: number): number {
  return (count * 1000) / milliseconds;
}

export function rounded(number: number): string {
  return Math.round(number).toLocaleString('en');
}

/** The middle of several measurements; the machine is noisy. */
export function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((one, other) => one - other);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
