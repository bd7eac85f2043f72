import { expect, it } from 'vitest';
import { fileSizeMaxBytes } from '../../core/limits.ts';
import { partSizeBytes, partSizeFor } from './s3-upload.ts';
import { Slots } from './slots.ts';

const mib = 1024 * 1024;

it.each([0, 1, mib, 39 * 1024 * mib, 77 * 1024 * mib, 500 * 1024 * mib, fileSizeMaxBytes])(
  'partSizeFor(%d) makes as many parts as there may be, and none larger than it must',
  (sizeBytes) => {
    const partSize = partSizeFor(sizeBytes);
    expect(partSize).toBeGreaterThanOrEqual(partSizeBytes);
    expect(Math.ceil((sizeBytes * 1.005) / partSize)).toBeLessThanOrEqual(10_000);
    expect(partSize).toBeLessThanOrEqual(Math.max(partSizeBytes, sizeBytes / 9_900 + mib));
    expect(partSize).toBeLessThan(110 * mib);
  },
);

it('Slots.take() lets who wants many wait, and those behind it too, until it is given up', async () => {
  const slots = new Slots(4);
  const order: string[] = [];
  const first = await slots.take(undefined, 3);
  const controller = new AbortController();
  const many = slots.take(controller.signal, 2).then(() => order.push('many'));
  const one = slots.take().then((release) => {
    order.push('one');
    return release;
  });
  await new Promise(setImmediate);
  expect(order).toEqual([]);
  controller.abort();
  await expect(many).rejects.toMatchObject({ code: 'aborted' });
  (await one)();
  expect(order).toEqual(['one']);
  first();
  first();
  // All of them, where more are wanted than there are; given back twice they count once.
  const all = await slots.take(undefined, 100);
  let taken = false;
  const next = slots.take().then(() => (taken = true));
  await new Promise(setImmediate);
  expect(taken).toBe(false);
  all();
  await next;
});
