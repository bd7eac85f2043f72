import { describe, expect, it } from 'vitest';
import { parseAuthorization } from './authorization.ts';

const basic = (pair: string): string => `Basic ${Buffer.from(pair).toString('base64')}`;

describe('parseAuthorization()', () => {
  it('reads Bearer and Basic in any letter case', () => {
    expect(parseAuthorization('Bearer abc')).toEqual({ name: undefined, secret: 'abc' });
    expect(parseAuthorization('bEARER   abc ')).toEqual({ name: undefined, secret: 'abc' });
    expect(parseAuthorization(basic('judge:a:b'))).toEqual({ name: 'judge', secret: 'a:b' });
    expect(parseAuthorization(basic(':x').replace('Basic', 'basic'))).toEqual({ name: '', secret: 'x' });
  });

  it.each(['', 'Bearer', 'Bearer ', 'Basic !!!', basic('nocolon'), 'Digest x=y', 'Bearer a b'])(
    'knows no credentials in %j',
    (text) => {
      expect(parseAuthorization(text)).toBeUndefined();
    },
  );
});
