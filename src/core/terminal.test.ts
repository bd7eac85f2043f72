import { expect, test } from 'vitest';
import { isSmartTerminal, mayColor } from './terminal.ts';

const terminal = { isTTY: true };

test('a terminal gets colors unless NO_COLOR is set and not empty, or it is a dumb one', () => {
  expect(mayColor(terminal, { TERM: 'xterm' })).toBe(true);
  expect(mayColor(terminal, { TERM: 'xterm', NO_COLOR: '' })).toBe(true);
  expect(mayColor(terminal, { TERM: 'xterm', NO_COLOR: '1' })).toBe(false);
  expect(mayColor(terminal, { TERM: 'dumb' })).toBe(false);
  expect(mayColor({}, { TERM: 'xterm' })).toBe(false);
});

test('only a terminal that is not dumb gets lines that are drawn over', () => {
  expect(isSmartTerminal(terminal, { NO_COLOR: '1' })).toBe(true);
  expect(isSmartTerminal(terminal, { TERM: 'dumb' })).toBe(false);
  expect(isSmartTerminal({ isTTY: false }, {})).toBe(false);
});
