import { expect, test } from 'vitest';
import { formatDuration, Progress, progressLine } from './progress.ts';

const mib = 1024 * 1024;

test('progressLine() tells share, bytes, rate and the time that is left', () => {
  expect(progressLine('/a/b', 64 * mib, 256 * mib, 32 * mib, 120)).toBe(
    '/a/b [======                  ] 25% 64.0 MiB of 256 MiB, 32.0 MiB/s, 0:06 left',
  );
  expect(progressLine('/a/b', 64 * mib, undefined, 32 * mib, 120)).toBe('/a/b 64.0 MiB, 32.0 MiB/s');
});

test.each([20, 40, 60, 80, 200])('progressLine() never is wider than the terminal (%i)', (columns) => {
  for (const label of ['/a', `/long/${'x'.repeat(300)}/name.tar`]) {
    for (const total of [undefined, 0, 10 * mib]) {
      expect(progressLine(label, 5 * mib, total, mib, columns).length).toBeLessThan(columns);
    }
  }
});

test('formatDuration() writes minutes, and hours where there are any', () => {
  expect([0, 59.6, 61, 3600, 36_061].map(formatDuration)).toEqual([
    '0:00',
    '1:00',
    '1:01',
    '1:00:00',
    '10:01:01',
  ]);
});

function output(isTTY: boolean): {
  isTTY: boolean;
  columns: number;
  text: string;
  write: (text: string) => void;
} {
  const to = { isTTY, columns: 80, text: '', write: (text: string): void => void (to.text += text) };
  return to;
}

test('Progress says nothing in the first half second, nor anywhere but on a terminal', async () => {
  const [terminal, file] = [output(true), output(false)];
  const bars = [
    new Progress('a', true, terminal),
    new Progress('a', true, file),
    new Progress('a', false, terminal),
  ];
  for (const bar of bars) bar.update({ phase: 'fetching', done: 1, total: 10 });
  expect(terminal.text + file.text).toBe('');
  await new Promise((resolve) => setTimeout(resolve, 550));
  for (const bar of bars) bar.update({ phase: 'fetching', done: 2, total: 10 });
  expect(terminal.text).toContain('20%');
  expect(file.text).toBe('');
  for (const bar of bars) bar.end();
  expect(terminal.text.endsWith('\r\u001b[K')).toBe(true);
});
