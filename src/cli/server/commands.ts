import { connectionsSection, backEndsSection } from '../../config/back-end-config.ts';
import { folderSetting, serverSections } from '../../config/server-config.ts';
import { count, duration, flag, option, section, text, type Flags } from '../../config/setting.ts';
import { reportSection, type CommandSpec } from '../commands.ts';

const program = 'filetracker-server';

const placeSection = section('Store', {
  folder: { ...folderSetting, help: 'folder of the store, as for the server' },
  catalog: {
    ...backEndsSection.settings.catalog,
    help: 'database of the store, as for the server; all its servers share the tokens',
  },
});

const tokenSection = section('Token', {
  prefixes: option(
    '--prefix <path>',
    'prefix of the names that the token gives access to, "/" for all; repeatable',
    text,
    {
      many: true,
      required: true,
    },
  ),
  rights: option('--rights <rights>', 'any of read,write,delete,list,admin', text, { required: true }),
  create: flag('--create', 'create the store if it is missing'),
  expires: option(
    '--expires <time>',
    'when the token expires: after a time (90d) or on a date (2030-01-31)',
    text,
    {
      initially: 'never',
    },
  ),
});

const listTokensSection = section('Output', {
  json: flag('--json', 'print one JSON object per line'),
});

const timeSection = section('Snapshot', {
  at: option(
    '--at <time>',
    'restore the state at this time: 2026-11-23T10:00:00Z, seconds since 1970, or 2h for two hours ago',
    text,
    {
      initially: 'the last snapshot',
    },
  ),
});

const snapshots = count(1, 999_999);

export const pruneSection = section('Prune', {
  last: option('--keep-last <number>', 'keep the last snapshots, up to this number', snapshots),
  daily: option(
    '--keep-daily <days>',
    'keep the last snapshot of each of this many days (UTC) that have one',
    snapshots,
  ),
  weekly: option('--keep-weekly <weeks>', 'the same for weeks', snapshots),
  monthly: option('--keep-monthly <months>', 'the same for months', snapshots),
  withinMs: option(
    '--keep-within <time>',
    'keep all snapshots that are at most this much older than the last one: 30d',
    duration({ least: 1 }),
  ),
});

const dryRunSection = section('Change', {
  dryRun: flag('--dry-run', 'report what would be removed, remove nothing'),
});

const checkSection = section('Check', {
  full: flag('-f, --full', 'read every blob and check its digest'),
});

export const moveSection = section('Move', {
  from: option('--from <store>', 'DIR, or postgres://…,s3://…, or DIR with one of these', text, {
    required: true,
  }),
  to: option('--to <store>', 'the same; created if it is missing', text, { required: true }),
  jobs: option('--jobs <number>', 'concurrent copies', count(1, 999), { initial: 16 }),
});

export type PlaceFlags = Flags<typeof placeSection>;
export type AddTokenFlags = PlaceFlags & Flags<typeof tokenSection>;
export type ListTokensFlags = PlaceFlags & Flags<typeof listTokensSection>;
export type ReportFlags = Flags<typeof reportSection>;
export type RestoreFlags = ReportFlags & Flags<typeof timeSection>;
export type ListBackupFlags = Flags<typeof listTokensSection>;
export type PruneFlags = ReportFlags & Flags<typeof pruneSection> & Flags<typeof dryRunSection>;
export type CheckBackupFlags = ReportFlags & Flags<typeof checkSection>;
export type MoveFlags = ReportFlags & Flags<typeof moveSection> & Flags<typeof connectionsSection>;

const token: CommandSpec = {
  name: 'token',
  summary: 'manage the tokens of a store: add, ls, rm',
  description:
    'Manages access to a store. Once it has had a token, a store is open only to clients with a token.',
  commands: [
    {
      name: 'add',
      description: 'Adds a token and prints it. The store keeps only its hash.',
      args: { '<name>': '' },
      sections: [tokenSection, placeSection],
    },
    {
      name: 'ls',
      description: 'Lists names, prefixes, rights, and times of creation and expiry.',
      sections: [placeSection, listTokensSection],
    },
    { name: 'rm', description: 'Removes a token.', args: { '<name>': '' }, sections: [placeSection] },
  ],
};

const backupArgument = { '<BACKUP>': 'folder of the backup' };

const backup: CommandSpec = {
  name: 'backup',
  summary: 'take a snapshot of a store; ls, prune, check',
  description:
    'Takes a snapshot of a store; its server may keep running. TARGET is itself a store. Later backups to it copy ' +
    'only new data and keep the earlier snapshots. A store in a folder that is named as a command: ./ls',
  args: {
    '<DIR>': 'folder of the store',
    '<TARGET>': 'folder of the backup: empty, or a backup of this store',
  },
  sections: [reportSection],
  commands: [
    {
      name: 'ls',
      description: 'Lists the snapshots of a backup, oldest first: time, number of files, their size.',
      args: backupArgument,
      sections: [listTokensSection],
    },
    {
      name: 'prune',
      description:
        'Removes snapshots that no --keep-… flag keeps, and blobs that none of the others needs. The last snapshot ' +
        'always stays.',
      args: backupArgument,
      sections: [pruneSection, dryRunSection, reportSection],
    },
    {
      name: 'check',
      description:
        'Checks each snapshot of a backup: its journal, and that every blob that it needs is there in its size. ' +
        'Changes nothing; exits with 1 if something is damaged.',
      args: backupArgument,
      sections: [checkSection, reportSection],
    },
  ],
};

const restore: CommandSpec = {
  name: 'restore',
  summary: 'create a store from a backup',
  description: 'Creates a store from a backup, as it was at its last snapshot or at any earlier time.',
  args: { '<BACKUP>': 'folder of the backup', '<DIR>': 'folder of the new store; it must be empty' },
  sections: [timeSection, reportSection],
};

const move: CommandSpec = {
  name: 'move',
  summary: 'copy a store to other back ends',
  description:
    'Copies every file of one store to another, on any back ends, and verifies every blob. Stop the server of a ' +
    'store in a folder first. If interrupted, run it again.',
  sections: [moveSection, connectionsSection, reportSection],
};

export const serverSpec: CommandSpec = {
  name: program,
  description: 'Serves a filetracker store over HTTP.',
  sections: serverSections,
  commands: [token, backup, restore, move],
  notes: `
Examples:
  ${program} -d /srv/filetracker -l 0.0.0.0
  ${program} token add judge -d /srv/filetracker \\
    --prefix / --rights read,list
  ${program} -d /srv/filetracker --daemon --pid-file ft.pid -L ft.log
  ${program} --catalog postgres://db/ft --blobs s3://bucket
  ${program} backup /srv/filetracker /mnt/backup
  ${program} restore /mnt/backup /srv/restored --at 2026-11-23T10:00Z

Signals: TERM and INT finish running requests, then stop; a second one stops
at once, or ends a --drain-delay. HUP reopens the log file and reloads keys and
certificates. USR2 starts the program that is on the disk now and hands over
to it without refusing a connection.`,
};
