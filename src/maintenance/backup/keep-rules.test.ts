import { describe, expect, it } from 'vitest';
import type { StoredSnapshot } from './backup-layout.ts';
import { applyKeepRules, type KeepRules } from './keep-rules.ts';

function snapshotAt(time: string, at: number): StoredSnapshot {
  const timeMs = Date.parse(time);
  return { format: 1, timeMs, end: { segment: 1, offset: at }, segments: [1], folder: `/history/${time}` };
}

/** From Monday, 2026-06-01, to Saturday, 2026-06-13, every twelve hours. */
const snapshots = Array.from({ length: 26 }, (_, at) => {
  return snapshotAt(new Date(Date.UTC(2026, 5, 1, 6 + 12 * at)).toISOString(), at);
});

function keptBy(rules: KeepRules): string[] {
  const { kept, removed } = applyKeepRules(snapshots, rules);
  expect(kept.length + removed.length).toBe(snapshots.length);
  return kept.map(({ timeMs }) => new Date(timeMs).toISOString().slice(5, 13));
}

describe('applyKeepRules()', () => {
  it('keeps the last snapshots', () => {
    expect(keptBy({ last: 3 })).toEqual(['06-12T18', '06-13T06', '06-13T18']);
    expect(keptBy({ last: 100 })).toHaveLength(26);
  });

  it('keeps the last one of each day, week and month', () => {
    expect(keptBy({ daily: 3 })).toEqual(['06-11T18', '06-12T18', '06-13T18']);
    // Sunday evening ends a week.
    expect(keptBy({ weekly: 5 })).toEqual(['06-07T18', '06-13T18']);
    expect(keptBy({ monthly: 5 })).toEqual(['06-13T18']);
  });

  it('keeps all within a time of the last one', () => {
    expect(keptBy({ withinMs: 86_400_000 })).toEqual(['06-12T18', '06-13T06', '06-13T18']);
  });

  it('keeps what any rule keeps', () => {
    expect(keptBy({ last: 1, daily: 2, weekly: 2 })).toEqual(['06-07T18', '06-12T18', '06-13T18']);
  });

  it('always keeps the last one', () => {
    expect(keptBy({ withinMs: 1 })).toEqual(['06-13T18']);
    expect(applyKeepRules([], { last: 1 })).toEqual({ kept: [], removed: [] });
  });

  it('goes by the order of the journals if a clock was wrong', () => {
    const [early, late] = [snapshotAt('2026-06-02T00:00:00Z', 1), snapshotAt('2026-06-01T00:00:00Z', 2)];
    expect(applyKeepRules([early, late], { last: 1 })).toEqual({ kept: [late], removed: [early] });
  });
});
