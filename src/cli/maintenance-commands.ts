// The command lines of filetracker-recover, filetracker-migrate and filetracker-cache-cleaner.
import { connectionsSection } from '../config/back-end-config.ts';
import {
  count,
  duration,
  flag,
  option,
  refuseFlag,
  section,
  size,
  text,
  type Flags,
} from '../config/setting.ts';
import { reportSection, type CommandSpec } from './commands.ts';

const recoverSection = section('Recovery', {
  full: flag('-f, --full', 'read every blob and check its digest and size'),
  dryRun: flag('--dry-run', 'find everything, change nothing'),
  acceptLoss: flag('--accept-loss', 'mark missing blobs as lost even if they may be stored elsewhere'),
});

export type RecoverFlags = Flags<typeof recoverSection> &
  Flags<typeof reportSection> &
  Flags<typeof connectionsSection>;

export const recoverSpec: CommandSpec = {
  name: 'filetracker-recover',
  description:
    'Checks and repairs a store: rebuilds a lost or damaged catalog from journal and blobs, removes damaged ' +
    'parts from the journal, and marks files whose blobs are lost. Damaged parts are moved to DIR/quarantine, never ' +
    'deleted. Stop the server of a store in a folder first; a store in PostgreSQL can stay in ' +
    'use.',
  args: { '<DIR>': 'folder of the store, or postgres://…,s3://…, or DIR with one of these' },
  sections: [recoverSection, reportSection, connectionsSection],
};

export const migrateSection = section('Migration', {
  root: option('--root <folder>', 'folder that names are relative to', text, { initially: 'FILES' }),
  jobs: option('-j, --jobs <number>', 'concurrent uploads', count(1, 999), { initially: '8' }),
  exclude: option('--exclude <pattern>', 'leave out matching names, as in .gitignore; repeatable', text, {
    many: true,
  }),
  adopt: flag('--adopt', 'adopt a folder of filetracker 2, by hard links; nothing in it is changed'),
  adopt1x: flag('--adopt-1x', 'adopt a folder of filetracker 1 (plain files), by copies'),
});

export type MigrateFlags = Flags<typeof migrateSection> & Flags<typeof reportSection>;

export const migrateSpec: CommandSpec = {
  name: 'filetracker-migrate',
  description:
    'Copies a tree of files to a server: the name of a file is its path relative to ROOT, its version its time of ' +
    'modification. Skips files that the server has, so it can be interrupted and run again. With --adopt, makes a ' +
    'new store from a folder of the old server on the same machine.',
  args: {
    '<FILES>': 'folder to copy, or with --adopt the folder of the old server',
    '<URL>': 'base URL of the server, or with --adopt the folder of the new store',
  },
  sections: [migrateSection, reportSection],
  notes: `
Examples:
  filetracker-migrate /srv/files http://localhost:9999
  filetracker-migrate --adopt /srv/filetracker-2 /srv/filetracker-3
  filetracker-migrate --adopt-1x /srv/filetracker-1 /srv/filetracker-3`,
};

function readPercent(text: string, flag: string): number {
  const percent = Number(text);
  if (text.trim() !== '' && percent >= 0 && percent <= 100) return percent;
  return refuseFlag(flag, text, 'it must be a percentage from 0 to 100');
}

export const cleanerSection = section('Caches', {
  patterns: option('-c, --cache-dirs <glob...>', 'folders of caches; may contain * ? []', text, {
    many: true,
    required: true,
  }),
  sizeMaxBytes: option(
    '-s, --cache-size <size>',
    'total size of the caches at which cleaning begins',
    size(),
    {
      aliases: ['--cache-size-limit <size>'],
      required: true,
    },
  ),
  intervalMs: option('-i, --scan-interval <time>', 'time between two scans', duration(), {
    initial: 3_600_000,
  }),
  percentLeft: option(
    '-p, --percent-cleaning-level <n>',
    'percentage of the size to keep when cleaning',
    { read: readPercent, show: String },
    { initial: 50 },
  ),
  once: flag('--once', 'scan once and exit'),
  json: flag('--json', 'print a report as JSON after each scan'),
  verbose: flag('-v, --verbose', 'report every scan', { aliases: ['-d, --debug'] }),
  quiet: flag('-q, --quiet', 'print only errors'),
});

export const cleanerSpec: CommandSpec = {
  name: 'filetracker-cache-cleaner',
  description: 'Keeps caches within a size.',
  sections: [cleanerSection],
  notes: `
Cleans caches of the filetracker program and of the Python client. When their
total size reaches SIZE, the least recently used files of all of them are
removed until PERCENT of SIZE remain. Files in use and pinned files stay. A
folder that cannot be cleaned is reported once; with --once the exit code is
then 1. Run by root, the cleaner acts as the owner of each folder. A folder
whose name looks like a pattern, such as proj[1], is taken literally.

Sizes are in bytes, or in the units B K M G T (also KB, KiB), each 1,024 times
the one before. Times are in s m h d. Units can be combined: 1G512M, 1h30m.

Example:
  filetracker-cache-cleaner -c '/home/*/.filetracker-store' -s 50G -i 10m`,
};
