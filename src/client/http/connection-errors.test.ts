import { expect, test } from 'vitest';
import { isFiletrackerError } from '../../core/errors.ts';
import { fromConnectionError } from './connection-errors.ts';

test('an address whose zone this machine does not have is refused with advice and not retried', () => {
  const raw = Object.assign(new Error('connect EINVAL fe80::1%eth9:9999 - Local (:::0)'), { code: 'EINVAL' });
  const error = fromConnectionError(raw, { action: 'get "/f"' }, '"http://[fe80::1%25eth9]:9999"');
  if (!isFiletrackerError(error)) throw new Error('not a FiletrackerError');
  expect(error.message).toBe(
    'Cannot get "/f" at "http://[fe80::1%25eth9]:9999": this machine cannot use the address; name one of its networks in it, as "http://[fe80::1%eth0]:9999"',
  );
  expect(error.code).toBe('unreachable');
  expect(error.retryable).toBe(false);
});
