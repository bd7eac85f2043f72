import { runToEnd } from '../run-to-end.ts';
import { runCommand, type Actions } from '../commands.ts';
import { clientSpec } from './commands.ts';
import type {
  CleanFlags,
  GetFlags,
  GlobalFlags,
  ListFlags,
  PrefetchFlags,
  PutFlags,
  SyncFlags,
} from './commands.ts';
import { programName, withContext, type CommandContext } from './context.ts';
import type { Command } from 'commander';

const files = () => import('./file-commands.ts');
const trees = () => import('./tree-commands.ts');
const caches = () => import('./cache-commands.ts');

/** A command with a client that is closed at its end. */
interface ClientAction {
  run(context: CommandContext, ...words: unknown[]): Promise<void>;
}

/** Their modules are loaded when they run, because most commands need few of them. */
const actions: Readonly<Record<string, ClientAction['run']>> = {
  get: async (context, name: string, local: string, flags: GetFlags) =>
    flags.recursive === true
      ? (await trees()).getTreeCommand(context, name, local, flags)
      : (await files()).getCommand(context, name, local, flags),
  put: async (context, local: string, name: string, flags: PutFlags) =>
    flags.recursive === true
      ? (await trees()).putTreeCommand(context, local, name, flags)
      : (await files()).putCommand(context, local, name, flags),
  cat: async (context, name: string) => (await files()).catCommand(context, name),
  rm: async (context, names: string[]) => (await files()).removeCommand(context, names),
  version: async (context, name: string) => (await files()).versionCommand(context, name),
  stat: async (context, names: string[]) => (await files()).statCommand(context, names),
  exists: async (context, name: string) => (await files()).existsCommand(context, name),
  ls: async (context, directory: string | undefined, flags: ListFlags) =>
    (await files()).listCommand(context, directory, flags),
  sync: async (context, direction: string, source: string, target: string, flags: SyncFlags) =>
    (await trees()).syncCommand(context, direction, source, target, flags),
  prefetch: async (context, names: string[], flags: PrefetchFlags) =>
    (await trees()).prefetchCommand(context, names, flags),
  'cache status': async (context) => (await caches()).cacheStatusCommand(context),
  'cache clean': async (context, flags: CleanFlags) => (await caches()).cacheCleanCommand(context, flags),
  'cache verify': async (context) => (await caches()).cacheVerifyCommand(context),
  'cache pin': async (context, names: string[]) => (await caches()).cachePinCommand(context, names),
  'cache unpin': async (context, names: string[]) => (await caches()).cacheUnpinCommand(context, names),
};

/** Commands that only print: their work is done when the reader of their output is gone. */
const printers: ReadonlySet<string> = new Set([
  'cat',
  'version',
  'stat',
  'exists',
  'ls',
  'cache status',
  'completion',
]);

/** Runs the program with these words, to the exit code of the process. */
export async function runProgram(words: readonly string[]): Promise<void> {
  let onlyPrints = true;
  const running: Record<string, Actions[string]> = {
    completion: async (shell: string) => {
      const { completionScript } = await import('./completion.ts');
      process.stdout.write(completionScript(shell));
    },
  };
  for (const [path, act] of Object.entries(actions)) {
    running[path] = async (...given) => {
      const command = given.at(-1) as Command;
      onlyPrints = printers.has(path) || (path === 'get' && given[1] === '-');
      // A flag after the command wins over one before it.
      const flags: GlobalFlags = {
        ...command.parent?.parent?.opts(),
        ...command.parent?.opts(),
        ...command.opts(),
      };
      await withContext(flags, (context) => act(context, ...given));
    };
  }
  await runToEnd(programName, () => runCommand(clientSpec, running, words), { onlyPrints: () => onlyPrints });
}
