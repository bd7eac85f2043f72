import { availableParallelism, homedir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { readGuardConfig } from './guard-config.ts';
import { readServerConfig, workersFor, type ServerFlags } from './server-config.ts';

describe('readServerConfig()', () => {
  it('has a default for everything', () => {
    expect(readServerConfig({}, {})).toEqual({
      folder: join(homedir(), '.local/share/filetracker'),
      backEnds: { catalog: undefined, blobs: undefined, redirectDownloads: false },
      host: '127.0.0.1',
      port: 9999,
      basePath: '',
      fallbackUrl: undefined,
      fallbackMode: 'redirect',
      workers: workersFor(availableParallelism()),
      fastLane: true,
      drainDelayMs: 0,
      collectionGraceMs: 3_600_000,
      verifyIntervalMs: undefined,
      verifyBytesPerSecond: 32 * 1024 ** 2,
      logLevel: 'info',
      logFile: undefined,
      guard: readGuardConfig({}),
    });
  });

  it('leaves a core to the threads of the workers and the kernel, if there is more than one', () => {
    expect([1, 2, 3, 4, 64].map(workersFor)).toEqual([1, 1, 2, 3, 63]);
    expect(readServerConfig({ workers: '5' }, {}).workers).toBe(5);
  });

  it('takes the folder from the flag, then the environment, then the user', () => {
    const environment = { FILETRACKER_DIR: '/from/environment', XDG_DATA_HOME: '/data' };
    expect(readServerConfig({ dir: '/from/flag' }, environment).folder).toBe('/from/flag');
    expect(readServerConfig({}, environment).folder).toBe('/from/environment');
    expect(readServerConfig({}, { ...environment, FILETRACKER_DIR: '' }).folder).toBe('/data/filetracker');
    expect(readServerConfig({ dir: 'relative' }, {}).folder).toBe(join(process.cwd(), 'relative'));
  });

  it('understands the words of the legacy server', () => {
    expect(readServerConfig({ logLevel: 'WARNING' }, {}).logLevel).toBe('warn');
    expect(readServerConfig({ logLevel: 'critical' }, {}).logLevel).toBe('fatal');
    expect(readServerConfig({ logLevel: 'DEBUG' }, {}).logLevel).toBe('debug');
  });

  it('leaves every request to node:http with --no-fast-lane', () => {
    expect(readServerConfig({ fastLane: false }, {}).fastLane).toBe(false);
    expect(readServerConfig({ fastLane: true }, {}).fastLane).toBe(true);
  });

  it('takes slashes off the ends of paths and URLs', () => {
    expect(readServerConfig({ basePath: '/ft/' }, {}).basePath).toBe('/ft');
    expect(readServerConfig({ basePath: '/' }, {}).basePath).toBe('');
    expect(readServerConfig({ fallbackUrl: 'http://old:8000/x//' }, {}).fallbackUrl).toBe(
      'http://old:8000/x',
    );
    expect(readServerConfig({ gcGrace: '0' }, {}).collectionGraceMs).toBe(0);
  });

  it.each([
    ['::1', '::1'],
    ['[::1]', '::1'],
    ['0.0.0.0', '0.0.0.0'],
    ['fe80::1%eth0', 'fe80::1%eth0'],
    ['[fe80::1%eth0]', 'fe80::1%eth0'],
    ['localhost', 'localhost'],
    ['my-host.example', 'my-host.example'],
  ])('listens on an address or the name of a host: %j', (listenOn, host) => {
    expect(readServerConfig({ listenOn }, {}).host).toBe(host);
  });

  it.each([
    ['fe80::1', 'needs its network interface, as in fe80::1%eth0'],
    ['127.0.0.1:9994', 'write it as -l 127.0.0.1 -p 9994'],
    ['[::1]:9994', 'write it as -l [::1] -p 9994'],
    ['localhost:80', 'write it as -l localhost -p 80'],
    ['http://localhost', 'neither an address nor the name of a host'],
    ['*', 'use 0.0.0.0 or ::'],
    ['a b', 'neither an address'],
    ['[::1', 'neither an address'],
    ['::1%', 'neither an address'],
  ])('says what is wrong with an address to listen on: %j', (listenOn, state) => {
    expect(() => readServerConfig({ listenOn }, {})).toThrow(state);
  });

  it('names -d if the user has no home folder', () => {
    expect(readServerConfig({}, { XDG_DATA_HOME: '/data' }).folder).toBe('/data/filetracker');
    vi.stubEnv('HOME', 'relative');
    onTestFinished(() => void vi.unstubAllEnvs());
    expect(() => readServerConfig({}, {})).toThrow(/this user has no home folder; name a folder with -d$/);
    expect(() => readServerConfig({}, { XDG_DATA_HOME: 'relative' })).toThrow('no home folder');
    expect(readServerConfig({ dir: '/srv' }, {}).folder).toBe('/srv');
  });

  it.each<ServerFlags>([
    { port: '65536' },
    { port: '-1' },
    { port: 'http' },
    { port: '' },
    { workers: '0' },
    { workers: 'many' },
    { basePath: 'ft' },
    { basePath: '/a/../b' },
    { basePath: '/a//b' },
    { basePath: '/a b' },
    { fallbackUrl: 'old:8000' },
    { fallbackUrl: 'ftp://old' },
    { fallbackUrl: 'http://old/?x=1' },
    { fallbackUrl: 'http://user:secret@old/' },
    { gcGrace: '5' },
    { dir: '' },
    { listenOn: '' },
    { log: '' },
    { catalog: '' },
    { blobs: '' },
    { fallbackMode: 'import' },
    { fallbackMode: 'import', fallbackUrl: '' },
    { logLevel: 'loud' },
  ])('refuses %j with what it may be', (flags) => {
    expect(() => readServerConfig(flags, {})).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
  });

  const sizes = {
    '--file-size-max': 'fileSizeMax',
    '--store-size-max': 'storeSizeMax',
    '--free-space-min': 'freeSpaceMin',
    '--body-rate-min': 'bodyRateMin',
    '--verify-rate': 'verifyRate',
  } as const;
  const times = {
    '--gc-grace': 'gcGrace',
    '--verify-interval': 'verifyInterval',
    '--headers-timeout': 'headersTimeout',
    '--idle-timeout': 'idleTimeout',
    '--stall-timeout': 'stallTimeout',
    '--drain-delay': 'drainDelay',
    '--s3-timeout': 's3Timeout',
    '--catalog-timeout': 'catalogTimeout',
  } as const;
  const counts = {
    '--port': 'port',
    '--workers': 'workers',
    '--files-max': 'filesMax',
    '--uploads-max': 'uploadsMax',
    '--token-uploads-max': 'tokenUploadsMax',
    '--connections-max': 'connectionsMax',
    '--rate-max': 'rateMax',
    '--unpack-ratio-max': 'unpackRatioMax',
    '--catalog-pool': 'catalogPool',
    '--s3-connections': 's3Connections',
  } as const;
  const never = ['', '-1', 'NaN', 'Infinity', '1e9', '0x10', '٣', '1'.repeat(400), `${'9'.repeat(30)}T`];
  const edges = [...Object.entries(sizes), ...Object.entries(times), ...Object.entries(counts)].flatMap(
    ([flag, name]) => [...never, `${'9'.repeat(400)}d`].map((value) => ({ flag, name, value })),
  );

  it.each(edges)('names the flag that has no such value: $flag $value', ({ flag, name, value }) => {
    const flags = { dir: '/srv', catalog: 'postgres://h/d', blobs: 's3://bucket', [name]: value };
    expect(() => readServerConfig(flags, {})).toThrow(
      expect.objectContaining({
        code: 'invalid-argument',
        message: expect.stringMatching(new RegExp(`^Cannot use ${flag} "[^\n]*$`)),
      }),
    );
  });

  it.each(['/a=NaN', '/a=1e9', '/a=-1', 'a=1G', '/a=1G,', '/../x=1G', '/a', '', '/a=1,1e9'])(
    'names --quota, which has no such value: %j',
    (quota) => {
      expect(() => readServerConfig({ quota: [quota] }, {})).toThrow(/^Cannot use --quota "/);
    },
  );

  it('takes no file size of 0, which would refuse every file', () => {
    expect(() => readServerConfig({ fileSizeMax: '0' }, {})).toThrow('it must be more than 0');
  });

  it('takes a variable that is empty, or blank, for none', () => {
    for (const blank of ['', ' ']) {
      const config = readServerConfig(
        {},
        {
          XDG_DATA_HOME: '/data',
          FILETRACKER_DIR: blank,
          FILETRACKER_CATALOG: blank,
          FILETRACKER_BLOBS: blank,
        },
      );
      expect(config.folder).toBe('/data/filetracker');
      expect(config.backEnds).toMatchObject({ catalog: undefined, blobs: undefined });
    }
  });

  it('names the variable that has no such value', () => {
    expect(() => readServerConfig({}, { FILETRACKER_CATALOG: 'here' })).toThrow('FILETRACKER_CATALOG');
    expect(() => readServerConfig({}, { FILETRACKER_BLOBS: 's3:/x' })).toThrow('FILETRACKER_BLOBS');
  });

  it.each<[flag: string, flags: ServerFlags]>([
    ['--store-size-max', { storeSizeMax: '1G' }],
    ['--files-max', { filesMax: '5' }],
    ['--quota', { quota: ['/p=1G'] }],
  ])('refuses %s with a catalog in PostgreSQL, which does not keep it', (flag, flags) => {
    const environment = { FILETRACKER_CATALOG: 'postgres://h/d' };
    expect(() => readServerConfig(flags, environment)).toThrow(
      expect.objectContaining({
        code: 'invalid-argument',
        message: expect.stringMatching(`^Cannot use ${flag} with --catalog: `),
      }),
    );
    expect(
      readServerConfig({ storeSizeMax: '0', filesMax: '0' }, environment).backEnds.catalog,
    ).toBeDefined();
  });
});
