#!/usr/bin/env node
import { readServerConfig, type processSection, type ServerFlags } from '../config/server-config.ts';
import type { Flags } from '../config/setting.ts';
import { messageOf } from '../core/errors.ts';
import { withoutSecrets } from '../core/shown-text.ts';
import { reportFailure, startDaemon } from '../runtime/daemon.ts';
import { isWorker } from '../runtime/worker-pool.ts';
import { runCommand, type Actions } from './commands.ts';
import { runToEnd } from './run-to-end.ts';
import { serverSpec, type AddTokenFlags, type ListTokensFlags, type PlaceFlags } from './server/commands.ts';
import type {
  CheckBackupFlags,
  ListBackupFlags,
  MoveFlags,
  PruneFlags,
  ReportFlags,
  RestoreFlags,
} from './server/commands.ts';

/** From here on clients depend on this process, even if its terminal or the disk that it prints to is gone. */
let isServing = false;

/** Loaded when they run, so that the program starts without what only its commands need. */
const tokens = () => import('./server/token-command.ts');
const backups = () => import('./server/backup-command.ts');

const actions: Actions = {
  '': serve,
  'token add': async (name: string, flags: AddTokenFlags) => (await tokens()).addToken(name, flags),
  'token ls': async (flags: ListTokensFlags) => (await tokens()).listTokens(flags),
  'token rm': async (name: string, flags: PlaceFlags) => (await tokens()).removeToken(name, flags),
  backup: async (store: string, target: string, flags: ReportFlags) =>
    (await backups()).backup(store, target, flags),
  'backup ls': async (target: string, flags: ListBackupFlags) => (await backups()).listBackup(target, flags),
  'backup prune': async (target: string, flags: PruneFlags) => (await backups()).prune(target, flags),
  'backup check': async (target: string, flags: CheckBackupFlags) => (await backups()).check(target, flags),
  restore: async (source: string, store: string, flags: RestoreFlags) =>
    (await backups()).restore(source, store, flags),
  move: async (flags: MoveFlags) => (await import('./server/move-command.ts')).move(flags),
};

async function serve(flags: ServerFlags & Flags<typeof processSection>): Promise<void> {
  const config = readServerConfig(flags, process.env);
  const { daemon = false, pidFile, logConfig } = flags;
  isServing = !daemon;
  if (isWorker()) {
    const { runWorker } = await import('../runtime/worker.ts');
    return runWorker(config);
  }
  const { refuseOthersFolders } = await import('../maintenance/folder-owner.ts');
  await refuseOthersFolders([config.folder]);
  if (daemon) return startDaemon(config, process.argv.slice(2));
  // Loaded when the flags are known to be valid, so that help and errors are printed at once.
  const runtime = await import('../runtime/serve.ts');
  return runtime.serve(config, { pidFile, ignoredLogConfig: logConfig });
}

await runToEnd(serverSpec.name, () => runCommand(serverSpec, actions), {
  onFailure: (error) => reportFailure(withoutSecrets(messageOf(error))),
  serves: () => isServing,
});
