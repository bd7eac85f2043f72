import { fc } from '../../test/support/properties.ts';
import { describe, expect, it, test } from 'vitest';
import { FiletrackerError, localMessageOf, messageOf } from './errors.ts';
import { errorTextSizeMaxBytes } from './limits.ts';
import { boundedText, shownAddress, withoutSecrets } from './shown-text.ts';

describe('boundedText()', () => {
  it('leaves a text of up to 1 KiB as it is', () => {
    for (const text of ['', 'Cannot do it: no', 'x'.repeat(1024), '€'.repeat(341)]) {
      expect(boundedText(text)).toBe(text);
    }
  });

  it('keeps the beginning and the end of a longer one', () => {
    const text = boundedText(`Cannot read "${'\0'.repeat(100_000_000)}": it is damaged; retry`);
    expect(text).toMatch(/^Cannot read ".*\.\.\..*": it is damaged; retry$/s);
    expect(Buffer.byteLength(text)).toBeLessThanOrEqual(1024);
  });

  it('is never longer than 1 KiB, and cuts no character', () => {
    const unit = fc.constantFrom('a', 'ż', '€', '😀', '\n');
    fc.assert(
      fc.property(fc.array(unit, { maxLength: 3000 }), (characters) => {
        const bounded = boundedText(characters.join(''));
        expect(Buffer.byteLength(bounded)).toBeLessThanOrEqual(errorTextSizeMaxBytes);
        expect(bounded).not.toContain('\uFFFD');
      }),
      { numRuns: 30, seed: 1 },
    );
  });
});

describe('an error of any size', () => {
  const long = '/€'.repeat(1_000_000);
  const sizeOf = (text: string): number => Buffer.byteLength(text);

  it('has a text, and details, of at most 1 KiB', () => {
    const error = new FiletrackerError('io', `Cannot read "${long}": it failed`, {
      details: { expected: long, actual: 3 },
    });
    expect(sizeOf(error.message)).toBeLessThanOrEqual(1024);
    expect(sizeOf(String(error.details.expected))).toBeLessThanOrEqual(1024);
    expect(error.details.actual).toBe(3);
  });

  it('is reported to people in at most 1 KiB', () => {
    const cause = Object.assign(new Error(long), { code: 'EIO', path: long });
    expect(sizeOf(messageOf(cause))).toBeLessThanOrEqual(1024);
    expect(sizeOf(messageOf(long))).toBeLessThanOrEqual(1024);
    expect(sizeOf(localMessageOf(new FiletrackerError('io', 'Cannot read', { cause })))).toBeLessThanOrEqual(
      1024,
    );
  });
});

test.each([
  ['http://host:9999/prefix', 'http://host:9999/prefix'],
  ['http://me:TOKEN@host', 'http://…@host'],
  ['writer:TOKEN@host', '…@host'],
  ['http://w:TO/K@h', 'http://…@h'],
  ['http://w:a@b@h:99999', 'http://…@h:99999'],
  ['http://w:a?b#c@h', 'http://…@h'],
  ['postgres://u:p@db/ft?password=x&sslkey=y', 'postgres://…@db/ft?…'],
  ['s3://key:secret@bucket', 's3://…@bucket'],
  ['https://h/blob?X-Amz-Signature=1', 'https://h/blob?…'],
  ['', ''],
])('shownAddress(%j) hides what may be secret', (text, shown) => {
  expect(shownAddress(text)).toBe(shown);
});

test('withoutSecrets() hides the secrets of all addresses in a text', () => {
  const text = `Cannot find "/work/http:/w:T/K@h/x" and 'postgres://u:p@h/db', but /a@1700000000 and http://h:1/ are shown`;
  expect(withoutSecrets(text)).toBe(
    `Cannot find "/work/http:/…@h/x" and 'postgres://…@h/db', but /a@1700000000 and http://h:1/ are shown`,
  );
});
