import { describe, expect, test } from 'vitest';
import { proxyFor } from './proxies.ts';

const plain = { secure: false, host: 'files.example.com', port: 9999 };
const secure = { ...plain, secure: true };

function shownProxy(
  address: typeof plain,
  environment: Readonly<Record<string, string | undefined>>,
): string | undefined {
  return proxyFor(address, undefined, environment)?.shown;
}

describe('proxyFor()', () => {
  test('reads the variable of the scheme, lower case first, and ALL_PROXY after it', () => {
    const environment = { http_proxy: 'http://a:1', HTTP_PROXY: 'http://b:2', HTTPS_PROXY: 'http://c:3' };
    expect(shownProxy(plain, environment)).toBe('http://a:1');
    expect(shownProxy(secure, environment)).toBe('http://c:3');
    expect(shownProxy(plain, { HTTP_PROXY: 'b:2' })).toBe('http://b:2');
    expect(shownProxy(secure, { HTTP_PROXY: 'b:2', ALL_PROXY: 'https://d' })).toBe('https://d');
    expect(shownProxy(plain, { http_proxy: '', HTTP_PROXY: 'b:2' })).toBeUndefined();
    expect(shownProxy(plain, {})).toBeUndefined();
  });

  test('ignores HTTP_PROXY in a CGI program, where it is a header of the request', () => {
    expect(shownProxy(plain, { HTTP_PROXY: 'http://evil', REQUEST_METHOD: 'GET' })).toBeUndefined();
    expect(shownProxy(plain, { http_proxy: 'http://a', REQUEST_METHOD: 'GET' })).toBe('http://a');
    expect(shownProxy(secure, { HTTPS_PROXY: 'http://c', REQUEST_METHOD: 'GET' })).toBe('http://c');
  });

  test('takes what is given before the environment, and false for no proxy', () => {
    const environment = { http_proxy: 'http://a' };
    expect(proxyFor(plain, 'http://me:pw@given:8', environment)).toMatchObject({
      shown: 'http://given:8',
      authorization: `Basic ${Buffer.from('me:pw').toString('base64')}`,
    });
    expect(proxyFor(plain, false, environment)).toBeUndefined();
  });

  test.each(['localhost', 'a.localhost', '127.0.0.1', '127.8.9.10', '::1'])(
    'reaches %s, which is this machine, without a proxy',
    (host) => {
      expect(shownProxy({ ...plain, host }, { http_proxy: 'http://a' })).toBeUndefined();
    },
  );

  test.each([
    ['files.example.com', '*'],
    ['files.example.com', 'x, example.com'],
    ['files.example.com', '.example.com'],
    ['files.example.com', '*.example.com'],
    ['files.example.com', 'FILES.Example.com.'],
    ['files.example.com', 'example.com:9999'],
    ['files.example.com.', 'other files.example.com'],
    ['10.1.2.3', '10.0.0.0/8'],
    ['10.1.2.3', '10.1.2.3'],
    ['10.1.2.3', '10.1.2.3:9999'],
    ['fd00::1', 'fd00::/8'],
    ['fd00::1', 'fd00:0::1'],
    ['fd00::1', '[fd00::1]'],
    ['fd00::1', '[fd00::1]:9999'],
    ['fe80::1%eth0', 'fe80::/10'],
  ])('reaches %s without a proxy if NO_PROXY is %j', (host, list) => {
    expect(shownProxy({ ...plain, host }, { http_proxy: 'http://a', NO_PROXY: list })).toBeUndefined();
    expect(shownProxy({ ...plain, host }, { http_proxy: 'http://a', no_proxy: list })).toBeUndefined();
  });

  test.each([
    ['files.example.com', 'ample.com'],
    ['files.example.com', 'example.com:9998'],
    ['files.example.com', 'a.files.example.com'],
    ['files.example.com', 'files.example'],
    ['files.example.com', '10.0.0.0/8'],
    ['11.1.2.3', '10.0.0.0/8'],
    ['10.1.2.3', '10.0.0.0/99'],
    ['10.1.2.3', '2.3'],
    ['10.1.2.3', '/8'],
    ['fd00::1', '10.0.0.0/8'],
    ['files.example.com', ''],
    ['files.example.com', ' , ,'],
  ])('reaches %s through the proxy if NO_PROXY is %j', (host, list) => {
    expect(shownProxy({ ...plain, host }, { http_proxy: 'http://a', NO_PROXY: list })).toBe('http://a');
  });

  test('refuses a proxy that it cannot use, without showing its password', () => {
    for (const text of ['socks5://me:SECRET@h:1', 'http://me:SE/CRET@h']) {
      expect(() => proxyFor(plain, text)).toThrow(/^Cannot use the proxy "[a-z0-9]+:\/\/…@h/);
    }
  });
});
