import { fc } from '../../test/support/properties.ts';
import { describe, expect, it } from 'vitest';
import { digestOf } from '../core/digest.ts';
import { FiletrackerError } from '../core/errors.ts';
import { parseFileName } from '../core/file-name.ts';
import { formatEntryLines, formatNameLines, parseEntryLine, parseNameLine } from './list-format.ts';
import { asOneLine, describeProblem, errorOfAnswer, publicError, wantsProblem } from './problems.ts';
import { codeOfStatus, isErrorCode, statusOf } from './statuses.ts';

describe('statuses', () => {
  it('lead from a code to a status and back to a code of the same status', () => {
    const codes = [
      'not-found',
      'name-conflict',
      'too-large',
      'no-space',
      'unavailable',
      'forbidden',
    ] as const;
    for (const code of codes) expect(codeOfStatus(statusOf(code))).toBe(code);
    for (let status = 400; status < 600; status += 1) {
      const back = statusOf(codeOfStatus(status));
      expect(Math.floor(back / 100)).toBe(Math.floor(status / 100));
    }
    expect(codeOfStatus(302)).toBe('protocol');
  });

  it('know a code from any other word', () => {
    expect(isErrorCode('not-found')).toBe(true);
    for (const word of ['toString', '', undefined, 404]) expect(isErrorCode(word)).toBe(false);
  });
});

describe('asOneLine()', () => {
  it('leaves printable ASCII and escapes the rest', () => {
    expect(asOneLine('Cannot use "/a b": ~')).toBe('Cannot use "/a b": ~');
    expect(asOneLine('ż\n\r\u0085😀\u0000')).toBe('\\u017c\\u000a\\u000d\\u0085\\ud83d\\ude00\\u0000');
  });

  it('is at most 1 KiB long, escapes included', () => {
    for (const character of ['a', '\0', '€', '😀']) {
      const line = asOneLine(`Cannot get "/${character.repeat(1_000_000)}": it failed; retry`);
      expect(line.length).toBeLessThanOrEqual(1024);
      expect(line).toMatch(/^Cannot get .*: it failed; retry$/);
    }
  });

  it('is fit for a header whatever the text', () => {
    fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => /^[ -~]*$/.test(asOneLine(text))));
  });
});

describe('problems', () => {
  const error = new FiletrackerError('name-conflict', 'Cannot store "/a/b": "/a" is a file', {
    cause: new Error('/secret/path'),
    details: { name: '/a', version: 3 },
  });

  it('carry the error to the client, without its cause', () => {
    const body = JSON.stringify(describeProblem(error, 409, 'Conflict'));
    expect(body).not.toContain('secret');
    const back = errorOfAnswer(
      { status: 409, contentType: 'application/problem+json; charset=utf-8', body },
      'store "/a/b"',
    );
    expect(back).toMatchObject({ code: error.code, message: error.message, retryable: false });
    expect(back.details).toEqual({ name: '/a', version: 3, status: 409 });
  });

  it('are asked for by name', () => {
    expect(wantsProblem('application/json')).toBe(true);
    expect(wantsProblem('application/problem+json, */*')).toBe(true);
    for (const accept of [undefined, '*/*', 'text/plain', 'application/json;q=0']) {
      expect(wantsProblem(accept)).toBe(false);
    }
  });

  it('are understood without JSON, by the best text there is', () => {
    const text = { contentType: 'text/plain', body: 'from body\nsecond line' };
    expect(errorOfAnswer({ status: 404, exceptionLine: 'from header', ...text }, 'x').message).toBe(
      'from header',
    );
    expect(errorOfAnswer({ status: 404, ...text }, 'x').message).toBe('from body');
    const bare = errorOfAnswer(
      { status: 503, contentType: 'text/html', body: '<html>', retryAfter: '7' },
      'get "/a"',
    );
    expect(bare).toMatchObject({ code: 'unavailable', message: 'Cannot get "/a": the server returned 503' });
    expect(bare).toMatchObject({ retryable: true, details: { status: 503, retryAfterSeconds: 7 } });
  });

  it('survive a body that is not what it says', () => {
    for (const body of ['{', '[]', 'null', '{"code":"toString","detail":5}']) {
      const contentType = 'application/problem+json';
      expect(errorOfAnswer({ status: 404, contentType, body }, 'x').code).toBe('not-found');
    }
  });

  it('tell nothing of a bug but where to look', () => {
    const told = publicError(new Error('/secret/path'), 'r-1');
    expect(told).toMatchObject({ code: 'io', message: expect.stringContaining('r-1') });
    expect(told.message).not.toContain('secret');
    expect(publicError(error, 'r-1')).toBe(error);
  });
});

describe('list lines', () => {
  const digest = digestOf(Buffer.from(''));
  const name = parseFileName('/a/ż "q" \\.txt');
  const entry = { name, version: -5, digest, logicalSize: 10, storedSize: 7, encoding: 'gzip' };

  it('are names relative to the directory', () => {
    const names = [name, parseFileName('/a/b/c')];
    expect(formatNameLines(names, '/a/')).toBe('ż "q" \\.txt\nb/c\n');
    expect(formatNameLines(names, '/')).toBe('a/ż "q" \\.txt\na/b/c\n');
    expect(formatNameLines([], '/')).toBe('');
    expect(parseNameLine('b/c', '/a/')).toBe('/a/b/c');
  });

  it('are objects, read back as they were', () => {
    const lines = formatEntryLines([entry, entry]).split('\n');
    expect(lines).toHaveLength(3);
    expect(parseEntryLine(lines[0] ?? '')).toEqual({ name, version: -5, size: 10, storedSize: 7, digest });
  });

  it('are refused where something is missing or wrong', () => {
    const good: Record<string, unknown> = { name: '/a', version: 1, size: 1, storedSize: 1, digest };
    const bad = [
      '',
      '[]',
      'null',
      '{"name":"/a"',
      ...Object.keys(good).map((key) => JSON.stringify({ ...good, [key]: undefined })),
      JSON.stringify({ ...good, size: -1 }),
      JSON.stringify({ ...good, digest: '../../x' }),
    ];
    for (const line of bad) {
      expect(() => parseEntryLine(line)).toThrow(expect.objectContaining({ code: 'protocol' }));
    }
    expect(() => parseEntryLine(JSON.stringify({ ...good, name: '/../a' }))).toThrow(
      expect.objectContaining({ code: 'invalid-name' }),
    );
  });
});
