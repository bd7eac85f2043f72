import { describe, expect, it } from 'vitest';
import { readBackEndConfig } from './back-end-config.ts';

describe('readBackEndConfig()', () => {
  it('takes the embedded store where nothing is said', () => {
    expect(readBackEndConfig({}, {})).toEqual({
      catalog: undefined,
      blobs: undefined,
      redirectDownloads: false,
    });
  });

  it('reads addresses from flags before the environment', () => {
    const environment = { FILETRACKER_CATALOG: 'postgres://b/c', FILETRACKER_BLOBS: 's3://from-environment' };
    const config = readBackEndConfig(
      {
        catalog: 'postgres://u:p@host:5433/d?schema=mine',
        catalogPool: '7',
        catalogListPool: '3',
        catalogTimeout: '4s',
      },
      environment,
    );
    expect(config.catalog).toEqual({
      url: 'postgres://u:p@host:5433/d',
      schema: 'mine',
      poolSize: 7,
      listPoolSize: 3,
      connectTimeoutMs: 2000,
      queryTimeoutMs: 4000,
    });
    expect(config.blobs).toMatchObject({
      bucket: 'from-environment',
      prefix: '',
      checksums: 'when-required',
      addressing: 'path',
    });
  });

  it('reads bucket and prefix', () => {
    const s3PublicEndpoint = 'https://files.example/';
    const flags = { blobs: 's3://files/a/b', s3Endpoint: 'http://127.0.0.1:9000/', s3PublicEndpoint };
    const config = readBackEndConfig(flags, {});
    expect(config.blobs).toMatchObject({
      bucket: 'files',
      prefix: 'a/b/',
      endpoint: 'http://127.0.0.1:9000',
      publicEndpoint: 'https://files.example',
    });
  });

  it.each([
    { catalog: 'mysql://host/d' },
    { catalog: 'postgres://h/d', catalogPool: '0' },
    { catalog: 'postgres://h/d', catalogListPool: 'many' },
    { catalog: 'postgres://h/d', catalogTimeout: '0' },
    { blobs: 'http://bucket' },
    { blobs: 's3://Bucket' },
    { blobs: 's3://bucket/../x?' },
    { blobs: 's3://bucket', s3Endpoint: 'bucket.example' },
    { blobs: 's3://bucket', s3PublicEndpoint: 'files.example' },
    { blobs: 's3://bucket', s3Checksums: 'never' },
    { blobs: 's3://bucket', s3Addressing: 'host' },
    { redirectDownloads: true },
  ])('refuses %o', (flags) => {
    expect(() => readBackEndConfig(flags, {})).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
  });

  it('does not show the password of an address', () => {
    expect(() => readBackEndConfig({ catalog: 'mysql://u:secret@host/d' }, {})).toThrow(/^(?!.*secret)/);
  });
});
