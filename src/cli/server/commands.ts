import { connectionsSection, backEndsSection } from '../../config/back-end-config.ts';
import { folderSetting, serverSections } from '../../config/server-config.ts';
import { count, flag, option, section, text, type Flags } from '../../config/setting.ts';
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
    'restore the state at this time: 2026-11-23T10:00:00Z or seconds since 1970',
    text,
    {
      initially: 'the last snapshot',
    },
  ),
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

const backup: CommandSpec = {
  name: 'backup',
  summary: 'take a snapshot of a store',
  description:
    'Takes a snapshot of a store; its server may keep running. TARGET is itself a store. Later backups to it copy ' +
    'only new data and keep the earlier snapshots.',
  args: {
    '<DIR>': 'folder of the store',
    '<TARGET>': 'folder of the backup: empty, or a backup of this store',
  },
  sections: [reportSection],
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
