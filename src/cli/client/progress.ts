import { asShown } from '../../core/shown-text.ts';
import type { TransferProgress } from '../../client/transfer/download.ts';
import { formatSize } from '../../core/quantities.ts';
import { isSmartTerminal } from '../../core/terminal.ts';

/** A shorter transfer ends before a bar could be read. */
const silentMs = 500;
const redrawMs = 100;
const barWidth = 24;
/** The rate is the average over this time. */
const rateWindowMs = 3000;

interface ProgressOutput {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

/** One line of a bar, at most `columns` wide: name, percentage, bytes, rate and remaining time. */
export function progressLine(
  label: string,
  done: number,
  total: number | undefined,
  bytesPerSecond: number,
  columns: number,
): string {
  const known = total !== undefined && total > 0;
  const share = known ? Math.min(1, done / total) : 0;
  const filled = Math.round(share * barWidth);
  const bar = known
    ? `[${'='.repeat(filled)}${' '.repeat(barWidth - filled)}] ${Math.floor(share * 100)}%`
    : '';
  const bytes = known ? `${formatSize(done)} of ${formatSize(total)}` : formatSize(done);
  const left = known && bytesPerSecond > 0 ? `, ${formatDuration((total - done) / bytesPerSecond)} left` : '';
  const figures = `${bar} ${bytes}, ${formatSize(bytesPerSecond)}/s${left}`.trimStart();
  const labelMax = columns - figures.length - 2;
  const shown =
    label.length <= labelMax ? label : `…${label.slice(Math.max(0, label.length - labelMax + 1))}`;
  return labelMax >= 8 ? `${shown} ${figures}` : figures.slice(0, columns - 1);
}

export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)];
  const two = (number: number): string => String(number).padStart(2, '0');
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** A bar for transfers of more than half a second, on a terminal only. */
export class Progress {
  readonly #output: ProgressOutput;
  readonly #label: string;
  readonly #enabled: boolean;
  readonly #beganMs = performance.now();
  #done = 0;
  #total: number | undefined;
  #drawnMs = 0;
  #phase: TransferProgress['phase'] | undefined;
  #shown = false;
  #samples: { readonly atMs: number; readonly done: number }[] = [];

  constructor(label: string, enabled: boolean, output: ProgressOutput = process.stderr) {
    this.#label = asShown(label);
    this.#output = output;
    this.#enabled = enabled && isSmartTerminal(output);
  }

  /** Shows the progress of one transfer; each of its phases has its own bar. */
  readonly update = ({ phase, done, total }: TransferProgress): void => {
    if (phase !== this.#phase) this.#samples = [{ atMs: performance.now(), done: 0 }];
    this.#phase = phase;
    this.#done = done;
    this.#total = total;
    this.#draw();
  };

  readonly add = (bytes: number): void => {
    this.#done += bytes;
    this.#draw();
  };

  readonly expect = (total: number): void => {
    this.#total = total;
  };

  #draw(): void {
    if (!this.#enabled) return;
    const nowMs = performance.now();
    if (nowMs - this.#beganMs < silentMs || nowMs - this.#drawnMs < redrawMs) return;
    this.#drawnMs = nowMs;
    this.#shown = true;
    this.#samples.push({ atMs: nowMs, done: this.#done });
    this.#samples = this.#samples.filter(({ atMs }) => atMs > nowMs - rateWindowMs);
    const [first] = this.#samples;
    const since = first === undefined || first.atMs === nowMs ? { atMs: this.#beganMs, done: 0 } : first;
    const rate = ((this.#done - since.done) / (nowMs - since.atMs)) * 1000;
    const label = this.#phase === undefined ? this.#label : `${this.#phase} ${this.#label}`;
    const line = progressLine(label, this.#done, this.#total, rate, this.#output.columns ?? 80);
    this.#output.write(`\r${line}\u001b[K`);
  }

  /** Removes the bar. */
  end(): void {
    if (this.#shown) this.#output.write('\r\u001b[K');
    this.#shown = false;
  }
}
