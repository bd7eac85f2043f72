import { describe, expect, it } from 'vitest';
import { digestOf } from '../../core/digest.ts';
import { DigestSieve } from './digest-sieve.ts';

const digestNumbered = (number: number): ReturnType<typeof digestOf> => digestOf(Buffer.from(String(number)));

describe('DigestSieve', () => {
  it('has every digest that was added, however often, and hardly any other', () => {
    const sieve = new DigestSieve();
    for (let round = 0; round < 3; round += 1) {
      for (let number = 0; number < 70_000; number += 1) sieve.add(digestNumbered(number));
    }
    for (let number = 0; number < 70_000; number += 1) {
      if (!sieve.has(digestNumbered(number))) expect.unreachable(`${number} is missing`);
      if (sieve.has(digestNumbered(1_000_000 + number))) expect.unreachable(`${number} is no member`);
    }
  });

  it('takes digests after it was asked', () => {
    const sieve = new DigestSieve();
    expect(sieve.has(digestNumbered(1))).toBe(false);
    sieve.add(digestNumbered(1));
    expect(sieve.has(digestNumbered(1))).toBe(true);
    sieve.add(digestNumbered(2));
    expect([1, 2, 3].map((number) => sieve.has(digestNumbered(number)))).toEqual([true, true, false]);
  });
});
