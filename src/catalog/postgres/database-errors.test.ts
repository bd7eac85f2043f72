import { describe, expect, it } from 'vitest';
import { failureOf, fromDatabaseError } from './database-errors.ts';

function stated(code: string): Error {
  return Object.assign(new Error('as the database says it'), { code });
}

describe('fromDatabaseError()', () => {
  it.each(['57P01', '25006', '42P01', '42501', '0A000', '53300'])(
    'translates %s, a condition of the database, into a retryable error',
    (state) => {
      const translated = fromDatabaseError(stated(state), 'use the catalog');
      expect(translated).toMatchObject({ code: 'unavailable', details: { retryAfterSeconds: 2 } });
    },
  );

  it('returns the error of a wrong statement as it is', () => {
    const error = stated('42601');
    expect(fromDatabaseError(error, 'use the catalog')).toBe(error);
  });
});

describe('failureOf()', () => {
  const translated = (error: Error): unknown => fromDatabaseError(error, 'use the catalog');

  it('returns the SQLSTATE of the database, whatever the duration', () => {
    expect(failureOf(translated(stated('57014')), true)).toBe('57014');
    expect(failureOf(stated('42601'), false)).toBe('42601');
  });

  it('depends on the duration if the database sent no error', () => {
    expect(failureOf(translated(new Error('Query read timeout')), true)).toBe('timeout');
    expect(failureOf(translated(new Error('timeout exceeded when trying to connect')), false)).toBe(
      'unavailable',
    );
  });
});
