import { describe, expect, it } from 'vitest';
import { errnoOf, FiletrackerError, fromSystemError, localMessageOf } from './errors.ts';

function systemError(code: string): Error {
  return Object.assign(new Error(`${code}, write`), { code });
}

describe('fromSystemError()', () => {
  it('tells a quota that is used up from other errors, though Node has no name for it', () => {
    const error = systemError('Unknown system error -122');
    expect(errnoOf(error)).toBe('EDQUOT');
    expect(fromSystemError(error, 'write a file')).toMatchObject({ code: 'no-space', retryable: true });
  });

  it('translates what the system says of the disk', () => {
    expect(fromSystemError(systemError('ENOSPC'), 'write a file')).toMatchObject({ code: 'no-space' });
    expect(fromSystemError(systemError('EROFS'), 'write a file')).toMatchObject({ code: 'read-only' });
    expect(fromSystemError(systemError('EMFILE'), 'write a file')).toMatchObject({ code: 'busy' });
    expect(fromSystemError(systemError('Unknown system error -4095'), 'write a file')).toMatchObject({
      code: 'io',
    });
    expect(fromSystemError(systemError('EACCES'), 'lock a folder')).toMatchObject({
      code: 'io',
      message: expect.stringContaining('chown') as string,
    });
  });

  it('leaves what is no system error as it is', () => {
    const bug = new TypeError('undefined is not a function');
    const own = new FiletrackerError('busy', 'Cannot do it: busy');
    expect(fromSystemError(bug, 'write a file')).toBe(bug);
    expect(fromSystemError(own, 'write a file')).toBe(own);
  });
});

describe('localMessageOf()', () => {
  it('names the path that the system refused, once', () => {
    const cause = Object.assign(new Error('EACCES'), { code: 'EACCES', path: '/srv/store/journal/lock' });
    const error = new FiletrackerError('io', 'Cannot lock a folder: the disk reports EACCES', {
      cause,
    });
    expect(localMessageOf(error)).toBe(`${error.message} ("/srv/store/journal/lock")`);
    const named = new FiletrackerError('io', 'Cannot read "/srv/store/journal/lock"', { cause });
    expect(localMessageOf(named)).toBe(named.message);
    expect(localMessageOf(new Error('plain'))).toBe('plain');
  });

  it('names what was to be written where a copy did not fit, and not what was read', () => {
    const paths = { path: '/srv/old/blobs/1', dest: '/srv/store/blobs/1' };
    const shown = (code: string): string =>
      localMessageOf(fromSystemError(Object.assign(systemError(code), paths), 'copy a file'));
    expect(shown('ENOSPC')).toContain(paths.dest);
    expect(shown('EROFS')).toContain(paths.dest);
    expect(shown('EIO')).toContain(paths.path);
  });
});
