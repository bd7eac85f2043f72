import { fc } from '../../test/support/properties.ts';
import { describe, expect, it } from 'vitest';
import { parseFileName, type FileName } from '../core/file-name.ts';
import { encodeName, filePath, listPath, parseTarget, withoutUserInfo } from './request-target.ts';

const refused = expect.objectContaining({ code: 'invalid-name' });

describe('parseTarget()', () => {
  it.each([
    ['/files/a/b.txt', '/a/b.txt'],
    ['/files/a%2Fb.txt', '/a/b.txt'],
    ['//files/a', '/a'],
    ['////files/a', '/a'],
    ['/files/a@1700000000', '/a@1700000000'],
    ['/files/a%20b+c', '/a b+c'],
    ['/files/%C5%BC', '/ż'],
    ['/files/%F0%9F%98%80', '/😀'],
    ['/files/a%3Fb%23c', '/a?b#c'],
    ['/files/...', '/...'],
    ['/files/a.b/..c', '/a.b/..c'],
    ['/files/files', '/files'],
    ['http://host:9999/files/a', '/a'],
    ['HTTP://user@host//files/a', '/a'],
  ])('finds the name in %s', (target, name) => {
    expect(parseTarget(target)).toEqual({ endpoint: 'files', name, query: '' });
  });

  it.each([
    ['/list', '/'],
    ['/list/', '/'],
    ['//list/a', '/a/'],
    ['/list/a/b', '/a/b/'],
    ['/list/a/b/', '/a/b/'],
    ['/list/a%2F', '/a/'],
  ])('finds the directory in %s', (target, directory) => {
    expect(parseTarget(target)).toEqual({ endpoint: 'list', directory, query: '' });
  });

  it('keeps the query as it came', () => {
    const query = 'last_modified=a%20b?c/../d';
    expect(parseTarget(`/files/a?${query}`)).toEqual({ endpoint: 'files', name: '/a', query });
    expect(parseTarget('/version?')).toEqual({ endpoint: 'version', query: '' });
  });

  it.each(['/version', '/version/', '//version', '/status', '/healthz', '/readyz', '/metrics'])(
    'knows %s',
    (target) => {
      expect(parseTarget(target)?.endpoint).toBe(target.replaceAll('/', ''));
    },
  );

  it.each(['status', 'healthz', 'readyz', 'metrics', 'admin/verify'])(
    'knows /%s by this path alone, as a rule of a proxy does',
    (path) => {
      for (const base of ['', '/ft']) {
        expect(parseTarget(`${base}/${path}?a=/`, base)?.endpoint).toBe(path.split('/')[0]);
        expect(parseTarget(`http://host${base}/${path}`, base)?.endpoint).toBe(path.split('/')[0]);
        const aliases = [
          `/${path}/`,
          `/${path}//`,
          `//${path}`,
          `/${path};a`,
          `/${path.toUpperCase()}`,
          `/${path}%2f`,
        ];
        const letter = path.charCodeAt(0).toString(16);
        aliases.push(
          `/%${letter}${path.slice(1)}`,
          `/${path}%00`,
          `/${path}%20`,
          `/${path.replace('/', '//')}/`,
        );
        for (const alias of aliases)
          expect([alias, parseTarget(base + alias, base)]).toEqual([alias, undefined]);
      }
      expect(parseTarget(`//ft/${path}`, '/ft')).toBeUndefined();
    },
  );

  it.each([
    ['/a@b', '/a@b'],
    ['http://host/a@b', 'http://host/a@b'],
    ['http://u:secret@host/a@b?c@d', 'http://\u2026@host/a@b?c@d'],
    ['//u:secret@host/a@b', '//\u2026@host/a@b'],
    ['//files/a@b', '//files/a@b'],
    ['HTTP://u:p@q@host', 'HTTP://\u2026@host'],
    ['u:secret@host/a', '\u2026@host/a'],
    ['http://u:secret@host?a@b', 'http://\u2026@host?a@b'],
  ])('is shown in logs without user and password: %s', (target, shown) => {
    expect(withoutUserInfo(target)).toBe(shown);
  });

  it.each([
    '/',
    '',
    '//',
    '/file/a',
    '/Files/a',
    '/%66iles/a',
    '/filesx',
    '/version/x',
    '/version//',
    '/constructor',
    'http://host',
  ])('knows no endpoint at %s', (target) => {
    if (target === '') expect(() => parseTarget(target)).toThrow(refused);
    else expect(parseTarget(target)).toBeUndefined();
  });

  it.each([
    '/files',
    '/files/',
    '/files//a',
    '/files/a//b',
    '/files/a%2F%2Fb',
    '/files/%2Fa',
    '/files/a/',
    '/files/.',
    '/files/..',
    '/files/../a',
    '/files/a/..',
    '/files/a/./b',
    '/files/a/%2e%2E/b',
    '/files/..%2fa',
    '/files/a%00',
    '/files/a%0Ab',
    '/files/a%7F',
    '/files/a%C2%85',
    '/files/%FF',
    '/files/%C0%AF',
    '/files/%ED%A0%80',
    '/files/%C5',
    '/files/\u00c5\u00bc',
    '/files/ż',
    '/files/%',
    '/files/%zz',
    '/files/a%2',
    '/files/a#b',
    `/files/${'a'.repeat(256)}`,
    `/files/${'%C5%BC'.repeat(128)}`,
    `/files/${'a/'.repeat(512)}a`,
    '/list//',
    '/list//a',
    '/list/a//',
    '/list/a//b',
    '/list/../a',
    '/list/%00',
    '/../files/a',
    '/%2e%2e/files/a',
    '/./version',
    '*',
    'files/a',
    'ftp://host/files/a',
  ])('refuses %s', (target) => {
    expect(() => parseTarget(target)).toThrow(refused);
  });

  it('takes names up to the limits, counted in bytes', () => {
    const component = 'ż'.repeat(127);
    const name = `/${component}/${component}/${component}/${component}`;
    expect(parseTarget(`/files${encodeName(name)}`)).toMatchObject({ name });
    expect(() => parseTarget(`/files${encodeName(`${name}/${'a'.repeat(4)}`)}`)).toThrow(refused);
  });

  it('serves below a base path only, whose slashes may be doubled', () => {
    const route = { endpoint: 'files', name: '/a', query: '' };
    for (const target of ['/ft/files/a', '//ft/files/a', '/ft//files/a']) {
      expect(parseTarget(target, '/ft')).toEqual(route);
    }
    for (const target of ['/files/a', '/ftx/files/a', '/ft', '/ft%2Ffiles/a', '/FT/files/a']) {
      expect(parseTarget(target, '/ft')).toBeUndefined();
    }
    expect(() => parseTarget('/ft/../files/a', '/ft')).toThrow(refused);
    expect(() => parseTarget('/x/../ft/files/a', '/ft')).toThrow(refused);
  });
});

const component = fc
  .string({ unit: 'grapheme', minLength: 1, maxLength: 20 })
  .filter((text) => !/[/\p{Cc}]/u.test(text) && text !== '.' && text !== '..' && text.isWellFormed());
const fileName = fc
  .array(component, { minLength: 1, maxLength: 4 })
  .map((parts): FileName => parseFileName(`/${parts.join('/')}`));

describe('filePath() and listPath()', () => {
  it('are read back as the same name, under any base path', () => {
    fc.assert(
      fc.property(fileName, fc.constantFrom('', '/ft', '/a/b'), (name, basePath) => {
        expect(parseTarget(`${basePath}${filePath(name)}?x`, basePath)).toMatchObject({ name });
        expect(parseTarget(basePath + listPath(`${name}/`), basePath)).toMatchObject({
          directory: `${name}/`,
        });
      }),
    );
    expect(listPath('/')).toBe('/list/');
  });

  it('never let a refused target be read as another name', () => {
    fc.assert(
      fc.property(fc.webPath(), (path) => {
        try {
          const route = parseTarget(`/files${path}`);
          if (route?.endpoint === 'files') expect(parseFileName(route.name)).toBe(route.name);
        } catch (error) {
          expect(error).toEqual(refused);
        }
      }),
    );
  });
});
