import { array, assert, constantFrom, property, tuple } from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SenderSlots } from './sender-slots.ts';

const what = 'uploads';
const action = 'store "/a"';

/** How many slots a sender gets that takes all it can. */
function takeAll(slots: SenderSlots, sender: string): number {
  for (let count = 0; ; count += 1) {
    try {
      slots.take(action, sender);
    } catch {
      return count;
    }
  }
}

describe('SenderSlots', () => {
  it('leaves as many for others as a sender has', () => {
    const slots = new SenderSlots({ what, max: 12 });
    expect(takeAll(slots, 'one')).toBe(6);
    expect(() => slots.take(action, 'one')).toThrow(expect.objectContaining({ code: 'rate-limited' }));
    expect(takeAll(slots, 'two')).toBe(3);
    expect(takeAll(slots, 'three')).toBe(2);
    expect(takeAll(slots, 'four')).toBe(1);
    expect(() => slots.take(action, 'five')).toThrow(expect.objectContaining({ code: 'busy' }));
  });

  it('gives a sender more when others have ended', () => {
    const slots = new SenderSlots({ what, max: 3 });
    slots.take(action, 'one');
    slots.take(action, 'two');
    expect(() => slots.check(action, 'one')).toThrow(/1 uploads of this token/);
    slots.release('two');
    slots.take(action, 'one');
    slots.release('one');
    slots.release('one');
    expect(slots.count).toBe(0);
    expect(takeAll(slots, 'one')).toBe(2);
  });

  it('keeps to a part that is given', () => {
    const slots = new SenderSlots({ what, max: 12, senderMax: 10 });
    expect(takeAll(slots, 'one')).toBe(10);
    expect(takeAll(slots, 'two')).toBe(2);
  });

  it('lets the first upload of everyone in while there is room at all, whatever the others do', () => {
    const steps = array(tuple(constantFrom('a', 'b', 'c'), constantFrom('take', 'release')));
    const cases = property(steps, (all) => {
      const slots = new SenderSlots({ what, max: 8 });
      const held = { a: 0, b: 0, c: 0 };
      for (const [sender, step] of all) {
        if (step === 'release' && held[sender] > 0) {
          slots.release(sender);
          held[sender] -= 1;
        } else if (step === 'take') {
          try {
            slots.take(action, sender);
            held[sender] += 1;
          } catch {
            expect(held[sender]).toBeGreaterThan(0);
          }
        }
        expect(slots.count).toBe(held.a + held.b + held.c);
        expect(() => slots.check(action, 'newcomer')).not.toThrow();
      }
    });
    assert(cases, { numRuns: 100 });
  });
});
