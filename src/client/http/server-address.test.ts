import { inspect } from 'node:util';
import { expect, test } from 'vitest';
import { parseServerAddress } from './server-address.ts';

test('parseServerAddress() reads host, port, prefix and credentials', () => {
  expect(parseServerAddress('https://me:s%2Fx@Host:9999/ft/')).toEqual({
    secure: true,
    host: 'host',
    port: 9999,
    hostHeader: 'host:9999',
    prefix: '/ft',
    authorization: `Basic ${Buffer.from('me:s/x').toString('base64')}`,
    shown: 'https://host:9999/ft',
  });
});

test.each(['%25', '%'])('parseServerAddress() reads the zone of an IPv6 address after "%s"', (mark) => {
  expect(parseServerAddress(`http://w:t@[fe80::1${mark}eth0]:9999`)).toMatchObject({
    host: 'fe80::1%eth0',
    port: 9999,
    hostHeader: '[fe80::1]:9999',
    shown: 'http://[fe80::1%25eth0]:9999',
  });
});

test.each([
  'writer:SECRET@host',
  'http://w:SE/CRET@h',
  'http://w:12/SECRET@h',
  'http://w:SECRET?x@h',
  'http://w:SECRET#x@h',
  'http://w:SECRET@b@h:99999',
  'http://SECRET@h/?q=1',
  'http://h/?token=SECRET',
  'ftp://w:SECRET@h',
])('parseServerAddress() refuses %j without showing its secret', (text) => {
  let thrown: unknown;
  try {
    parseServerAddress(text);
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toMatchObject({ code: 'invalid-argument' });
  expect(inspect(thrown, { depth: Infinity, showHidden: true })).not.toMatch(/SECRET|CRET/);
});

test('parseServerAddress() advises to percent-encode what ends an address too early', () => {
  for (const text of ['http://w:TO/K@h', 'http://w:12/K@h', 'http://w:a@b@h:99999']) {
    expect(() => parseServerAddress(text)).toThrow(/"http:\/\/…@h.*": it is not a URL; .* as %40, %2F/);
  }
});
