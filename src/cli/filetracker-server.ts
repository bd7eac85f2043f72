#!/usr/bin/env node
import { Command } from 'commander';
import { reportFailure, startDaemon } from '../runtime/daemon.ts';
import { readServerConfig, type ServerFlags } from '../config/server-config.ts';
import { messageOf } from '../core/errors.ts';
import { withoutSecrets } from '../core/shown-text.ts';
import { release } from '../core/release.ts';
import { isWorker } from '../runtime/worker-pool.ts';
import { addEngineOptions } from './server/engine-options.ts';
import { addGuardOptions } from './server/guard-options.ts';
import { inHouseStyle } from './house-style.ts';
import { runToEnd } from './run-to-end.ts';

const program = 'filetracker-server';

interface Options extends ServerFlags {
  readonly logConfig?: string;
  readonly daemon?: boolean;
  readonly pidFile?: string;
}

const examples = `
Commands, each with a --help of its own:
  token add|ls|rm     change who may use a store
  backup, restore     take a snapshot of a store; make a store anew from one
  move                bring a store to other engines
  help [command]      show this, or the help of a command

Examples:
  ${program} -d /srv/filetracker -l 0.0.0.0
  ${program} token add judge -d /srv/filetracker \\
    --prefix / --rights read,list
  ${program} -d /srv/filetracker --daemon --pid-file ft.pid -L ft.log
  ${program} --catalog postgres://db/ft --blobs s3://bucket
  ${program} backup /srv/filetracker /mnt/backup
  ${program} restore /mnt/backup /srv/restored --at 2026-11-23T10:00Z

Signals: TERM and INT finish running requests, then stop; a second one stops
at once, or ends a --drain-delay. HUP reopens the log file, keys and
certificates. USR2 starts the program again, as it is on the disk now, and
hands over to it without refusing a connection.`;

function describeProgram(): Command {
  const command = new Command(program)
    .description('Serves a filetracker store over HTTP.')
    .version(release, '--version', 'show the version')
    .allowExcessArguments(false)
    .option('-p, --port <port>', 'port to listen on (default: 9999)')
    .option('-l, --listen-on <address>', 'address to listen on (default: 127.0.0.1)')
    .option(
      '-d, --dir <folder>',
      'folder of the store (default: $FILETRACKER_DIR, else filetracker in the data folder of the user)',
    )
    .option('-L, --log <file>', 'append the log to a file instead of printing it')
    .option('--log-level <level>', 'trace, debug, info, warn, error, fatal or silent (default: info)')
    .option('--log-config <file>', 'taken for the sake of old scripts, and not used')
    .option('--daemon', 'go to the background once the server is up; needs -L')
    .option('-D, --no-daemon', 'stay in the foreground, which is the default')
    .option('--pid-file <file>', 'write the number of the process to a file')
    .option('--base-path <path>', 'prefix of every path, such as /ft')
    .option('--fallback-url <url>', 'send readers of missing files to this server (307)')
    .option('--fallback-mode <mode>', 'redirect, or import: fetch missing files from there and keep them')
    .option('--gc-grace <time>', 'keep content that no name refers to any more so long (default: 1h)')
    .option('--verify-interval <time>', 'read and check everything so often (default: on request only)')
    .option('--verify-rate <size>', 'bytes a second that this may read (default: 32M)')
    .option('--drain-delay <time>', 'on SIGTERM, serve for this long with /readyz 503 first (default: 0)')
    .option('--workers <number>', 'processes that serve requests (default: one for each core)');
  // The everyday flags come first in the help.
  return inHouseStyle(addEngineOptions(addGuardOptions(command)).addHelpText('after', examples), program);
}

/** From here on clients depend on this process, whatever becomes of the terminal or the disk that it prints to. */
let isServing = false;

/** `help token add` is `token add --help`. */
function wordsOf(words: readonly string[]): readonly string[] {
  return words[0] === 'help' ? [...words.slice(1), '--help'] : words;
}

async function main(): Promise<void> {
  const words = wordsOf(process.argv.slice(2));
  const [subcommand, ...rest] = words;
  if (subcommand === 'token') {
    const { describeTokenCommand } = await import('./server/token-command.ts');
    await describeTokenCommand(program).parseAsync(rest, { from: 'user' });
    return undefined;
  }
  if (subcommand === 'backup' || subcommand === 'restore') {
    const { runBackupCommand } = await import('./server/backup-command.ts');
    await runBackupCommand(program, subcommand, rest);
    return undefined;
  }
  if (subcommand === 'move') {
    const { runMoveCommand } = await import('./server/move-command.ts');
    await runMoveCommand(program, rest);
    return undefined;
  }
  const command = describeProgram();
  command.parse(words, { from: 'user' });
  const options = command.opts<Options>();
  const config = readServerConfig(options, process.env);
  const { daemon = false, pidFile, logConfig } = options;
  isServing = !daemon;
  if (isWorker()) {
    const { runWorker } = await import('../runtime/worker.ts');
    return runWorker(config);
  }
  const { refuseOthersFolders } = await import('../maintenance/folder-owner.ts');
  await refuseOthersFolders([config.folder]);
  if (daemon) return startDaemon(config, process.argv.slice(2));
  // Loaded when the flags are known to be good, so that help and mistakes are answered at once.
  const { serve } = await import('../runtime/serve.ts');
  return serve(config, { pidFile, ignoredLogConfig: logConfig });
}

await runToEnd(program, main, {
  onFailure: (error) => reportFailure(withoutSecrets(messageOf(error))),
  serves: () => isServing,
});
