import { handOuts } from '../../client/cache/materialize.ts';
import { choice, count, flag, option, section, text, type Flags } from '../../config/setting.ts';
import type { CommandSpec } from '../commands.ts';

/** Flags of the program, which may also follow a command. */
const globalSection = section('Options', {
  remoteUrl: option('-r, --remote-url <url>', 'the server, as http://host:9999', text, {
    variable: 'FILETRACKER_URL',
  }),
  cacheDir: option('-c, --cache-dir <folder>', 'folder of the cache', text, {
    variable: 'FILETRACKER_DIR',
    initially: '~/.filetracker-store',
  }),
  cacheSize: option('--cache-size <size>', 'maximum size of the cache, such as 10G', text, {
    aliases: ['--cache-size-limit <size>'],
    variable: 'FILETRACKER_CACHE_SIZE',
  }),
  handOut: option(
    '--hand-out <mode>',
    'how to materialize cached files: auto, reflink, link or copy',
    choice(...handOuts),
    { variable: 'FILETRACKER_HAND_OUT', initially: 'auto' },
  ),
  retryFor: option('--retry-for <time>', 'how long to retry while the server is unreachable', text, {
    variable: 'FILETRACKER_RETRY_FOR',
    initially: '20s',
  }),
  tlsCa: option('--tls-ca <file>', 'also trust servers with certificates of this authority (PEM)', text, {
    variable: 'FILETRACKER_TLS_CA',
  }),
  tlsCert: option('--tls-cert <file>', 'client certificate, with its chain', text, {
    variable: 'FILETRACKER_TLS_CERT',
  }),
  tlsKey: option('--tls-key <file>', 'private key of the client certificate', text, {
    variable: 'FILETRACKER_TLS_KEY',
  }),
  offline: flag('--offline', 'use only the cache'),
  verify: flag('--verify', 'check the digest of blobs from the cache'),
  json: flag('--json', 'print results as JSON, one object per line'),
  quiet: flag('-q, --quiet', 'print no progress bars and summaries'),
  verbose: flag('-v, --verbose', 'print what is done'),
});

const jobs = option('-j, --jobs <number>', 'concurrent transfers', count(1, 256), { initial: 8 });
const exclude = option(
  '--exclude <pattern>',
  'leave out matching names, as in .gitignore; repeatable',
  text,
  { many: true },
);

const getSection = section('Options', {
  cache: flag('-c, --no-cache', 'do not keep the file in the cache'),
  forceRefresh: flag('-f, --force-refresh', 'fetch even if the cache has the file'),
  recursive: flag('-R, --recursive', 'all files below the directory NAME, into the folder LOCAL'),
  jobs,
  exclude,
});
const putSection = section('Options', {
  localCache: flag('--no-local-cache', 'do not keep the file in the cache'),
  remoteCache: flag('--no-remote-cache', 'do not send the file to the server'),
  compress: flag('--no-compress', 'send the file uncompressed'),
  recursive: flag('-R, --recursive', 'all files of the folder LOCAL, below the directory NAME'),
  jobs,
  exclude,
});
const listSection = section('Options', {
  long: flag('-l, --long', 'show size and date'),
  local: flag('--local', 'list the cache'),
  null: flag('-0, --null', 'end each name with NUL instead of a line feed'),
  upTo: option('--up-to <version>', 'only versions up to this one: seconds since 1970, or a date', text),
});
const syncSection = section('Options', {
  delete: flag('--delete', 'remove files at the target that the source lacks'),
  allowEmpty: flag('--allow-empty', 'with --delete: even if the source has no files'),
  exclude,
  dryRun: flag('-n, --dry-run', 'only print what would be done'),
  checksum: flag('--checksum', 'compare digests even if size and time are equal'),
  force: flag('--force', 'overwrite newer files at the target'),
  jobs,
});
const prefetchSection = section('Options', {
  from: option('--from <file>', 'read names from a file, one per line; "-" is the standard input', text),
  null: flag('-0, --null', 'names in that file end with NUL instead of a line feed'),
  jobs,
});
const cleanSection = section('Options', {
  size: option('--size <size>', 'down to this size, such as 500M', text),
  all: flag('--all', 'all blobs that are not pinned, in use or the only copy'),
});

export const jobsSection = section('Options', { jobs });
export type GlobalFlags = Flags<typeof globalSection>;
export type GetFlags = Flags<typeof getSection>;
export type PutFlags = Flags<typeof putSection>;
export type ListFlags = Flags<typeof listSection>;
export type SyncFlags = Flags<typeof syncSection>;
export type PrefetchFlags = Flags<typeof prefetchSection>;
export type CleanFlags = Flags<typeof cleanSection>;

const cache: CommandSpec = {
  name: 'cache',
  description: 'inspect and maintain the cache',
  commands: [
    { name: 'status', description: 'print its size, limits and counts' },
    {
      name: 'clean',
      description: 'remove the least recently used blobs down to the limit, and stale records',
      sections: [cleanSection],
    },
    { name: 'verify', description: 'read all blobs and remove those that are damaged' },
    { name: 'pin', description: 'fetch files and protect them from eviction', args: { '<names...>': '' } },
    { name: 'unpin', description: 'allow the eviction of pinned files', args: { '<names...>': '' } },
  ],
};

const commands: readonly CommandSpec[] = [
  {
    name: 'get',
    description: 'fetch a file, or with -R all files below a directory; LOCAL may be "-"',
    args: { '<name>': '', '<local>': '' },
    sections: [getSection],
  },
  { name: 'cat', description: 'print a file', args: { '<name>': '' } },
  {
    name: 'put',
    description:
      'store a file and print its versioned name, or with -R all files of a folder; LOCAL may be "-"',
    args: { '<local>': '', '<name>': '' },
    sections: [putSection],
  },
  {
    name: 'rm',
    description: 'remove files; with a version, only up to that one',
    args: { '<names...>': '' },
  },
  { name: 'version', description: 'print the newest version of a file', args: { '<name>': '' } },
  { name: 'stat', description: 'print version, size and digest of files', args: { '<names...>': '' } },
  { name: 'exists', description: 'exit with 0 if the file exists, else with 3', args: { '<name>': '' } },
  {
    name: 'ls',
    description: 'list the files below a directory, recursively',
    args: { '[directory]': '' },
    sections: [listSection],
  },
  {
    name: 'sync',
    description:
      'update TARGET from SOURCE, transferring only changes: "sync up FOLDER DIRECTORY" or "sync down DIRECTORY FOLDER"',
    args: { '<up|down>': '', '<source>': '', '<target>': '' },
    sections: [syncSection],
  },
  {
    name: 'prefetch',
    description: 'fetch files into the cache',
    args: { '[names...]': '' },
    sections: [prefetchSection],
  },
  cache,
  {
    name: 'completion',
    description: 'print a completion script for all programs',
    args: { '<bash|zsh|fish>': '' },
  },
];

export const clientSpec: CommandSpec = {
  name: 'filetracker',
  description: 'Stores and fetches files by name, through a cache on this machine.',
  global: globalSection,
  commands,
  notes: `
A NAME begins with a slash. NAME@VERSION is exactly one version, served from the
cache without a request to the server. The version of a file is its time of
modification unless NAME contains one; the newest version wins.
Only "@" and digits at the end are a version. If the name itself ends like that,
append the version: /x@12@1700000000; ls prints it so.
The options above may also follow the command; after "get", -c is --no-cache.

Environment: without FILETRACKER_URL the cache is a store of its own. Further
variables: FILETRACKER_CACHE_MIN_FREE and FILETRACKER_CACHE_MODE. HTTP_PROXY,
HTTPS_PROXY and NO_PROXY work as in curl; https uses SSL_CERT_FILE and
SSL_CERT_DIR.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 refused by the
server, 5 server not reached, 130 or 143 stopped by SIGINT or SIGTERM.

Examples:
  filetracker put report.pdf /reports/2026.pdf
  filetracker get /reports/2026.pdf@1795359901 report.pdf
  tar c src | filetracker put - /backup/src.tar
  filetracker sync up ./site /site --delete --dry-run`,
};
