import type { StoredSnapshot } from './backup-layout.ts';

/** Which snapshots of a backup to keep. A snapshot is kept if any rule keeps it; the last one always is. */
export interface KeepRules {
  /** How many of the last snapshots to keep. */
  readonly last?: number | undefined;
  /** For how many of the last days, weeks and months, in UTC, to keep the last snapshot of each; a week begins on Monday. */
  readonly daily?: number | undefined;
  readonly weekly?: number | undefined;
  readonly monthly?: number | undefined;
  /** Keep snapshots that are at most this much older than the last one, in milliseconds. */
  readonly withinMs?: number | undefined;
}

const dayMs = 86_400_000;
/** 1970-01-01 was a Thursday. */
const weekShiftDays = 3;

/** Whether there is a rule. Without one, pruning would keep only the last snapshot, so that must be asked for. */
export function hasRule(rules: KeepRules): boolean {
  return Object.values(rules).some((value) => value !== undefined);
}

/** Splits the snapshots of a backup. @param snapshots in the order of their journals, oldest first. */
export function applyKeepRules(
  snapshots: readonly StoredSnapshot[],
  rules: KeepRules,
): { readonly kept: readonly StoredSnapshot[]; readonly removed: readonly StoredSnapshot[] } {
  const newestFirst = snapshots.toReversed();
  const kept = new Set(newestFirst.slice(0, Math.max(1, rules.last ?? 0)));
  const { withinMs } = rules;
  const newestMs = newestFirst[0]?.timeMs ?? 0;
  if (withinMs !== undefined) {
    for (const snapshot of newestFirst) if (newestMs - snapshot.timeMs <= withinMs) kept.add(snapshot);
  }
  const periods = [
    [rules.daily, (timeMs: number) => Math.floor(timeMs / dayMs)],
    [rules.weekly, (timeMs: number) => Math.floor((timeMs / dayMs + weekShiftDays) / 7)],
    [rules.monthly, (timeMs: number) => new Date(timeMs).toISOString().slice(0, 7)],
  ] as const;
  for (const [count = 0, periodOf] of periods) {
    const seen = new Set<string | number>();
    for (const snapshot of newestFirst) {
      const period = periodOf(snapshot.timeMs);
      if (seen.size >= count || seen.has(period)) continue;
      seen.add(period);
      kept.add(snapshot);
    }
  }
  return {
    kept: snapshots.filter((snapshot) => kept.has(snapshot)),
    removed: snapshots.filter((snapshot) => !kept.has(snapshot)),
  };
}
