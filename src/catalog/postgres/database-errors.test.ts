import { describe, expect, it } from 'vitest';
import { failureOf, fromDatabaseError } from './database-errors.ts';

function stated(code: string): Error {
  return Object.assign(new Error('as the database says it'), { code });
}

describe('fromDatabaseError()', () => {
  it.each(['57P01', '25006', '42P01', '42501', '0A000', '53300'])(
    'takes %s for a condition of the database, which passes',
    (state) => {
      const translated = fromDatabaseError(stated(state), 'use the catalog');
      expect(translated).toMatchObject({ code: 'unavailable', details: { retryAfterSeconds: 2 } });
    },
  );

  it('leaves a statement that is wrong as it is', () => {
    const error = stated('42601');
    expect(fromDatabaseError(error, 'use the catalog')).toBe(error);
  });
});

describe('failureOf()', () => {
  const translated = (error: Error): unknown => fromDatabaseError(error, 'use the catalog');

  it('is what the database says, whenever that comes', () => {
    expect(failureOf(translated(stated('57014')), true)).toBe('57014');
    expect(failureOf(stated('42601'), false)).toBe('42601');
  });

  it('goes by the time where there is no word of the database', () => {
    expect(failureOf(translated(new Error('Query read timeout')), true)).toBe('timeout');
    expect(failureOf(translated(new Error('timeout exceeded when trying to connect')), false)).toBe(
      'unavailable',
    );
  });
});
