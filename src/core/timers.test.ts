import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { pause, timerMaxMs, timerMs } from './timers.ts';

const dayMs = 24 * 60 * 60 * 1000;

describe('timerMs()', () => {
  it('keeps a delay that a timer of Node takes and cuts a longer one', () => {
    expect(timerMs(1500)).toBe(1500);
    expect(timerMs(timerMaxMs)).toBe(timerMaxMs);
    expect(timerMs(30 * dayMs)).toBe(timerMaxMs);
    expect(timerMs(Infinity)).toBe(timerMaxMs);
  });
});

describe('pause()', () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  async function endsAfterDays(days: number, signal?: AbortSignal): Promise<() => boolean> {
    let ended = false;
    void pause(days * dayMs, signal).then(
      () => (ended = true),
      () => (ended = true),
    );
    await vi.advanceTimersByTimeAsync(0);
    return () => ended;
  }

  it('waits for 60 days, which is longer than a timer of Node takes', async () => {
    const ended = await endsAfterDays(60);
    await vi.advanceTimersByTimeAsync(60 * dayMs - 1);
    expect(ended()).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect(ended()).toBe(true);
  });

  it('ends at once when it is aborted', async () => {
    const stop = new AbortController();
    const ended = await endsAfterDays(60, stop.signal);
    stop.abort();
    await vi.advanceTimersByTimeAsync(0);
    expect(ended()).toBe(true);
  });
});
