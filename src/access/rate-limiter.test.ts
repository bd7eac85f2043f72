import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../test/support/manual-clock.ts';
import { RateLimiter, senderOf } from './rate-limiter.ts';

function taken(limiter: RateLimiter, holder: string, tries: number): number {
  let count = 0;
  for (let index = 0; index < tries; index += 1) {
    try {
      limiter.take(holder);
      count += 1;
    } catch (error) {
      expect(error).toMatchObject({ code: 'rate-limited', details: { retryAfterSeconds: 1 } });
    }
  }
  return count;
}

describe('RateLimiter', () => {
  it('lets a second’s worth in at once, and then as many as the rate says', () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ requestsPerSecond: 10, clock });
    expect(taken(limiter, 'judge', 25)).toBe(10);
    clock.advance(500);
    expect(taken(limiter, 'judge', 25)).toBe(5);
    clock.advance(60_000);
    expect(taken(limiter, 'judge', 25)).toBe(10);
  });

  it('counts each holder alone', () => {
    const limiter = new RateLimiter({ requestsPerSecond: 2, clock: new ManualClock() });
    expect(taken(limiter, 'one', 5)).toBe(2);
    expect(taken(limiter, 'other', 5)).toBe(2);
  });

  it('lets one in where the rate of this process is below one a second', () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ requestsPerSecond: 0.5, clock });
    limiter.take('judge');
    expect(() => limiter.take('judge')).toThrow(
      expect.objectContaining({ details: { retryAfterSeconds: 2 } }),
    );
    clock.advance(2000);
    expect(taken(limiter, 'judge', 1)).toBe(1);
  });
});

describe('senderOf()', () => {
  it.each([
    ['192.0.2.1', '[192.0.2.1]'],
    ['::ffff:192.0.2.1', '[::ffff:192.0.2.1]'],
    ['2001:db8:1:2:3:4:5:6', '[2001:db8:1:2::/64]'],
    ['2001:db8:1:2::6', '[2001:db8:1:2::/64]'],
    ['2001:db8::6', '[2001:db8:0:0::/64]'],
    ['fe80::1:2%eth0', '[fe80:0:0:0::/64]'],
    ['::1', '[0:0:0:0::/64]'],
    ['', '[]'],
  ])('of %s is %s', (address, sender) => {
    expect(senderOf(address)).toBe(sender);
  });
});
