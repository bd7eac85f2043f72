import { expect, test } from 'vitest';
import { shownAddress, withoutSecrets } from './shown-address.ts';

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
