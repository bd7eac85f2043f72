import { availableParallelism, homedir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { readGuardConfig } from './guard-config.ts';
import { readServerConfig, type ServerFlags } from './config.ts';

describe('readServerConfig()', () => {
  it('has a default for everything', () => {
    expect(readServerConfig({}, {})).toEqual({
      folder: join(homedir(), '.local/share/filetracker'),
      engines: { catalog: undefined, blobs: undefined, redirectDownloads: false },
      host: '127.0.0.1',
      port: 9999,
      basePath: '',
      fallbackUrl: undefined,
      fallbackMode: 'redirect',
      workers: availableParallelism(),
      drainDelayMs: 0,
      collectionGraceMs: 3_600_000,
      verifyIntervalMs: undefined,
      verifyBytesPerSecond: 32 * 1024 ** 2,
      logLevel: 'info',
      logFile: undefined,
      guard: readGuardConfig({}),
    });
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
    ['fe80::1', 'name the network too, as fe80::1%eth0'],
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
    vi.stubEnv('HOME', '');
    onTestFinished(() => void vi.unstubAllEnvs());
    expect(() => readServerConfig({}, {})).toThrow(/no home folder \(\$HOME\); name a folder with -d$/);
    expect(readServerConfig({ dir: '/srv' }, {}).folder).toBe('/srv');
    expect(readServerConfig({}, { XDG_DATA_HOME: '/data' }).folder).toBe('/data/filetracker');
    expect(() => readServerConfig({}, { XDG_DATA_HOME: 'relative' })).toThrow('no home folder');
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
    expect(readServerConfig({ storeSizeMax: '0', filesMax: '0' }, environment).engines.catalog).toBeDefined();
  });
});
