import { describe, expect, it } from 'vitest';
import { unmangledName } from './legacy-links.ts';

describe('unmangledName()', () => {
  const mangled = (name: string): Buffer => Buffer.from(Buffer.from(name).toString('latin1'));

  it.each(['plain.txt', 'zażółć.txt', 'naïve', '日本語', '🙂', 'é'])(
    'undoes the encoding of the old server: %s',
    (name) => {
      expect(unmangledName(mangled(name))).toBe(name);
    },
  );

  it('keeps names that were never mangled', () => {
    expect(unmangledName(Buffer.from('日本語'))).toBe('日本語');
    expect(unmangledName(Buffer.from('caf\u00e9 noir'))).toBe('caf\u00e9 noir');
  });

  it('returns undefined for bytes that are not text', () => {
    expect(unmangledName(Buffer.from([0x61, 0xff, 0x62]))).toBeUndefined();
  });
});
