import { describe, expect, it, onTestFinished } from 'vitest';
import { systemClock } from '../core/clock.ts';
import { ManualClock } from '../../test/support/manual-clock.ts';
import { parseFileName } from '../core/file-name.ts';
import type { PutResult } from './file-store.ts';
import { UploadGate, type UploadRequest } from './upload-gate.ts';

const name = parseFileName('/a');
const stored: PutResult = { version: 1, stored: true, deduplicated: false };

/** A gate, and puts of 10 bytes of one sender each that end on request. */
function openGate(limits: { uploadsMax?: number; freeSpaceMinBytes?: number }, free: () => number) {
  const running: ((result: PutResult) => void)[] = [];
  const clock = new ManualClock();
  let questions = 0;
  let senders = 0;
  const gate = new UploadGate({
    uploadsMax: 100,
    freeSpaceMinBytes: 0,
    ...limits,
    freeSpace: () => {
      questions += 1;
      return Promise.resolve(free());
    },
    clock,
  });
  const put = (): Promise<PutResult> => {
    const request = { name, sender: `sender ${(senders += 1)}`, announcedSize: 10 };
    return gate.run(request, () => new Promise<PutResult>((resolve) => running.push(resolve)));
  };
  onTestFinished(() => running.forEach((end) => end(stored)));
  return { gate, put, clock, end: () => running.shift()?.(stored), questions: () => questions };
}

describe('UploadGate.run()', () => {
  it('admits puts up to its limit, and more when one has ended', async () => {
    const { gate, put, end } = openGate({ uploadsMax: 2 }, () => 1000);
    const first = put();
    void put();
    await expect.poll(() => gate.uploadCount).toBe(2);
    await expect(put()).rejects.toMatchObject({ code: 'busy', retryable: true });
    end();
    await first;
    void put();
    expect(gate.uploadCount).toBe(2);
  });

  it('keeps the minimum of free space, with the puts in progress counted', async () => {
    const { gate, put, clock } = openGate({ freeSpaceMinBytes: 100 }, () => 125);
    void put();
    await expect.poll(() => gate.uploadCount).toBe(1);
    void put();
    await expect(put()).rejects.toMatchObject({ code: 'no-space' });
    clock.advance(5000);
    await expect(put()).rejects.toMatchObject({ code: 'no-space' });
  });

  it('counts puts that come together while it asks for the free space', async () => {
    const { put } = openGate({ uploadsMax: 3, freeSpaceMinBytes: 100 }, () => 125);
    const codes = await Promise.all(
      [1, 2, 3, 4].map(() => {
        const refused = put()
          .then(() => 'stored')
          .catch((error: unknown) => (error as { code: string }).code);
        return Promise.race([refused, new Promise((resolve) => setTimeout(resolve, 50, 'admitted'))]);
      }),
    );
    expect(codes).toEqual(['admitted', 'admitted', 'no-space', 'busy']);
  });

  it('aborts bodies of unknown size when the minimum is reached, and no others', async () => {
    let freeBytes = 1000;
    const signals: AbortSignal[] = [];
    const put = (signal: AbortSignal | undefined): Promise<PutResult> =>
      new Promise((resolve, reject) => {
        if (signal === undefined) setTimeout(resolve, 2500, stored);
        else signals.push(signal);
        signal?.addEventListener('abort', () => reject(new Error('aborted')));
      });
    const gate = new UploadGate({
      uploadsMax: 100,
      freeSpaceMinBytes: 100,
      freeSpace: () => Promise.resolve(freeBytes),
      clock: systemClock,
    });
    const request: UploadRequest = { name, sender: 'one', announcedSize: 10 };
    const announced = gate.run(request, put);
    const interruption = new AbortController();
    const unknown: UploadRequest = { name, sender: 'two', announcedSize: undefined };
    const puts = [gate.run({ ...unknown, signal: interruption.signal }, put), gate.run(unknown, put)];
    const refused = puts.map((running) => expect(running).rejects.toMatchObject({ code: 'no-space' }));
    await expect.poll(() => signals.length).toBe(2);
    freeBytes = 99;
    await Promise.all(refused);
    expect(interruption.signal.aborted).toBe(false);
    await expect(announced).resolves.toEqual(stored);
    await expect(gate.run(request, put)).rejects.toMatchObject({ code: 'no-space' });
    await expect(gate.check(request)).rejects.toMatchObject({ code: 'no-space' });
  });

  it('asks for the free space at most once a second', async () => {
    const { gate, put, clock, questions } = openGate({}, () => 1000);
    void put();
    await expect.poll(() => gate.uploadCount).toBe(1);
    void put();
    expect(questions()).toBe(1);
    clock.advance(1000);
    void put();
    await expect.poll(() => gate.uploadCount).toBe(3);
    expect(questions()).toBe(2);
  });
});
