import { Command, Option } from 'commander';
import { withoutSecrets } from '../../core/shown-text.ts';
import { release } from '../../core/release.ts';
import { helpWidth } from '../output.ts';
import { runToEnd } from '../run-to-end.ts';
import { programName } from './context.ts';
import type { CommandContext, GlobalFlags } from './context.ts';
import type { CleanFlags } from './cache-commands.ts';
import type { GetFlags, ListFlags, PutFlags } from './file-commands.ts';
import { withContext } from './run-command.ts';
import type { PrefetchFlags, SyncFlags, TreeFlags } from './tree-commands.ts';

const notes = `
A NAME begins with a slash; NAME@VERSION names one version and no other, and is
served from the cache without asking the server. The version of a file that is
put is its time of modification unless NAME names one; the newest wins.
Only "@" and digits at the end are a version: a file that is called so itself
is named with its version behind, as /x@12@1700000000, and ls prints it so.
The options above may also follow the command; "get -c" is --no-cache there.

Environment: FILETRACKER_URL is the server (none: the cache is a store of its
own), FILETRACKER_DIR the cache, FILETRACKER_CACHE_SIZE its limit; also
FILETRACKER_CACHE_MIN_FREE, FILETRACKER_CACHE_MODE, FILETRACKER_HAND_OUT,
FILETRACKER_RETRY_FOR (as --retry-for), FILETRACKER_TLS_CA,
FILETRACKER_TLS_CERT and FILETRACKER_TLS_KEY. HTTP_PROXY, HTTPS_PROXY and
NO_PROXY are heeded as by curl, and SSL_CERT_FILE and SSL_CERT_DIR for https.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 refused by the
server, 5 server not reached, 130 or 143 stopped by SIGINT or SIGTERM.

Examples:
  ${programName} put report.pdf /reports/2026.pdf
  ${programName} get /reports/2026.pdf@1795359901 report.pdf
  tar c src | ${programName} put - /backup/src.tar
  ${programName} sync up ./site /site --delete --dry-run`;

/** Options of the program, which may also follow a command. */
const globalOptions: readonly (readonly [flags: string, description: string])[] = [
  ['-r, --remote-url <url>', 'the server, as http://host:9999 ($FILETRACKER_URL)'],
  ['-c, --cache-dir <folder>', 'the cache ($FILETRACKER_DIR, else ~/.filetracker-store)'],
  ['--cache-size <size>', 'what the cache may take, such as 10G'],
  ['--hand-out <way>', 'how cached files are handed out: auto, reflink, link or copy'],
  ['--retry-for <time>', 'wait so long for a server that is away (default: 20s)'],
  ['--tls-ca <file>', 'trust servers with certificates of this authority too (PEM)'],
  ['--tls-cert <file>', 'the certificate to show to the server, with its chain'],
  ['--tls-key <file>', 'the key of that certificate'],
  ['--offline', 'serve from the cache alone'],
  ['--verify', 'check the digest of what the cache serves'],
  ['--json', 'print results as JSON, one object a line'],
  ['-q, --quiet', 'no progress bars and summaries'],
  ['-v, --verbose', 'say what is done'],
];

/** Runs a command with a client that is closed at its end. */
type Runner = (work: (context: CommandContext) => Promise<void>) => Promise<void>;

function describeProgram(run: Runner): Command {
  const program = new Command(programName)
    .description('Stores and fetches files by name, through a cache on this machine.')
    .usage('[options] COMMAND')
    .version(release, '-V, --version', 'show the version')
    .addHelpText('after', notes)
    .enablePositionalOptions();
  for (const [flags, description] of globalOptions) program.option(flags, description);
  addGet(program, run);
  addPut(program, run);
  addLookUps(program, run);
  addTrees(program, run);
  addCache(program, run);
  addCompletion(program);
  for (const command of [
    program,
    ...program.commands,
    ...program.commands.flatMap(({ commands }) => commands),
  ]) {
    prepare(command);
  }
  return program;
}

function prepare(command: Command): void {
  command
    .configureHelp({ helpWidth, showGlobalOptions: false, subcommandTerm: (sub) => subcommandTerm(sub) })
    .helpOption('-h, --help', 'show this help')
    .configureOutput({
      outputError: (text, write) => write(withoutSecrets(text.replace(/^error: /, `${programName}: `))),
    })
    .showHelpAfterError(`See ${programName} --help`)
    .allowExcessArguments(false)
    .exitOverride();
  if (command.parent !== null && command.commands.length === 0 && command.name() !== 'completion') {
    addGlobalOptions(command);
  }
}

/** The options of the program, for who writes them after the command; a letter that the command has is its own. */
function addGlobalOptions(command: Command): void {
  const letters = new Set(command.options.map(({ short }) => short));
  for (const [flags, description] of globalOptions) {
    const [short] = flags.split(', ');
    const option = new Option(letters.has(short) ? flags.slice(flags.indexOf('--')) : flags, description);
    command.addOption(option.hideHelp(option.long !== '--json'));
  }
}

/** The name and the arguments of a command, without its options, so that the list of commands fits. */
function subcommandTerm(command: Command): string {
  const words = command.registeredArguments.map((argument) => {
    const name = `${argument.name().toUpperCase()}${argument.variadic ? '...' : ''}`;
    return argument.required ? name : `[${name}]`;
  });
  return [command.name(), ...words].join(' ');
}

/** May be given several times, each with one pattern. */
function excludeOption(): Option {
  const description = 'leave out what is called so, as in .gitignore; may be given again';
  return new Option('--exclude <pattern>', description).argParser(
    (pattern: string, before: readonly string[] | undefined) => [...(before ?? []), pattern],
  );
}

function addGet(program: Command, run: Runner): void {
  program
    .command('get')
    .description('fetch a file, or with -R all files below a directory; LOCAL may be "-"')
    .argument('<name>')
    .argument('<local>')
    .option('-c, --no-cache', 'do not keep the file in the cache')
    .option('-f, --force-refresh', 'fetch it from the server whatever the cache has')
    .option('-R, --recursive', 'all files below the directory NAME, into the folder LOCAL')
    .option('-j, --jobs <number>', 'transfers at the same time, with -R (default: 8)')
    .addOption(excludeOption())
    .action((name: string, local: string, flags: GetFlags & TreeFlags & { recursive?: boolean }) =>
      run(async (context) => {
        if (flags.recursive !== true) {
          const { getCommand } = await import('./file-commands.ts');
          return await getCommand(context, name, local, flags);
        }
        const { getTreeCommand } = await import('./tree-commands.ts');
        return await getTreeCommand(context, name, local, flags);
      }),
    );
  program
    .command('cat')
    .description('print a file')
    .argument('<name>')
    .action((name: string) =>
      run(async (context) => (await import('./file-commands.ts')).catCommand(context, name)),
    );
}

function addPut(program: Command, run: Runner): void {
  program
    .command('put')
    .description(
      'store a file and print its versioned name, or with -R all files of a folder; LOCAL may be "-"',
    )
    .argument('<local>')
    .argument('<name>')
    .option('--no-local-cache', 'do not keep the file in the cache')
    .option('--no-remote-cache', 'do not send the file to the server')
    .option('--no-compress', 'send the content as it is')
    .option('-R, --recursive', 'all files of the folder LOCAL, below the directory NAME')
    .option('-j, --jobs <number>', 'transfers at the same time, with -R (default: 8)')
    .addOption(excludeOption())
    .action((local: string, name: string, flags: PutFlags & TreeFlags & { recursive?: boolean }) =>
      run(async (context) => {
        if (flags.recursive !== true) {
          const { putCommand } = await import('./file-commands.ts');
          return await putCommand(context, local, name, flags);
        }
        const { putTreeCommand } = await import('./tree-commands.ts');
        return await putTreeCommand(context, local, name, flags);
      }),
    );
  program
    .command('rm')
    .description('remove files; with a version, only up to that one')
    .argument('<names...>')
    .action((names: string[]) =>
      run(async (context) => (await import('./file-commands.ts')).removeCommand(context, names)),
    );
}

function addLookUps(program: Command, run: Runner): void {
  program
    .command('version')
    .description('print the newest version of a file')
    .argument('<name>')
    .action((name: string) =>
      run(async (context) => (await import('./file-commands.ts')).versionCommand(context, name)),
    );
  program
    .command('stat')
    .description('print version, size and digest of files')
    .argument('<names...>')
    .action((names: string[]) =>
      run(async (context) => (await import('./file-commands.ts')).statCommand(context, names)),
    );
  program
    .command('exists')
    .description('exit with 0 if there is such a file, else with 3')
    .argument('<name>')
    .action((name: string) =>
      run(async (context) => (await import('./file-commands.ts')).existsCommand(context, name)),
    );
  program
    .command('ls')
    .description('list the files below a directory, recursively')
    .argument('[directory]')
    .option('-l, --long', 'with size and date')
    .option('--local', 'what the cache holds')
    .option('-0, --null', 'end each name with NUL, not with a line feed')
    .option('--up-to <version>', 'only versions up to this one: seconds since 1970, or a date')
    .action((directory: string | undefined, flags: ListFlags) =>
      run(async (context) => (await import('./file-commands.ts')).listCommand(context, directory, flags)),
    );
}

function addTrees(program: Command, run: Runner): void {
  program
    .command('sync')
    .description(
      'make TARGET like SOURCE, sending only what changed: "sync up FOLDER DIRECTORY" or "sync down DIRECTORY FOLDER"',
    )
    .argument('<up|down>')
    .argument('<source>')
    .argument('<target>')
    .option('--delete', 'remove at the target what is not at the source')
    .option('--allow-empty', 'with --delete: also if the source holds no files')
    .addOption(excludeOption())
    .option('-n, --dry-run', 'only say what would be done')
    .option('--checksum', 'compare contents also where size and time are the same')
    .option('--force', 'overwrite what is newer at the target too')
    .option('-j, --jobs <number>', 'transfers at the same time (default: 8)')
    .action((direction: string, source: string, target: string, flags: SyncFlags) =>
      run(async (context) =>
        (await import('./tree-commands.ts')).syncCommand(context, direction, source, target, flags),
      ),
    );
  program
    .command('prefetch')
    .description('bring files into the cache')
    .argument('[names...]')
    .option('--from <file>', 'read names from a file, one a line; "-" is the standard input')
    .option('-0, --null', 'names in that file end with NUL, not with a line feed')
    .option('-j, --jobs <number>', 'transfers at the same time (default: 8)')
    .action((names: string[], flags: PrefetchFlags) =>
      run(async (context) => (await import('./tree-commands.ts')).prefetchCommand(context, names, flags)),
    );
}

function addCache(program: Command, run: Runner): void {
  const cache = program.command('cache').description('look at the cache and care for it');
  cache
    .command('status')
    .description('print its size, limits and counts')
    .action(() => run(async (context) => (await import('./cache-commands.ts')).cacheStatusCommand(context)));
  cache
    .command('clean')
    .description('remove the least recently used down to the limit, and what was left over')
    .option('--size <size>', 'down to this size, such as 500M')
    .option('--all', 'all that is not pinned, in use or the only copy')
    .action((flags: CleanFlags) =>
      run(async (context) => (await import('./cache-commands.ts')).cacheCleanCommand(context, flags)),
    );
  cache
    .command('verify')
    .description('read all of it and remove what is damaged')
    .action(() => run(async (context) => (await import('./cache-commands.ts')).cacheVerifyCommand(context)));
  cache
    .command('pin')
    .description('fetch files and keep them from being removed')
    .argument('<names...>')
    .action((names: string[]) =>
      run(async (context) => (await import('./cache-commands.ts')).cachePinCommand(context, names)),
    );
  cache
    .command('unpin')
    .description('let pinned files be removed')
    .argument('<names...>')
    .action((names: string[]) =>
      run(async (context) => (await import('./cache-commands.ts')).cacheUnpinCommand(context, names)),
    );
}

function addCompletion(program: Command): void {
  program
    .command('completion')
    .description('print a script that completes commands: bash, zsh or fish')
    .argument('<shell>')
    .action(async (shell: string) => {
      const { completionScript } = await import('./completion.ts');
      process.stdout.write(completionScript(program, shell));
    });
}

/** Commands whose work is done when nobody reads any more what they print. */
const printers: ReadonlySet<string> = new Set([
  'cat',
  'version',
  'stat',
  'exists',
  'ls',
  'status',
  'completion',
]);

/** Runs the program with these words; its result is the exit code of the process. */
export async function runProgram(words: readonly string[]): Promise<void> {
  let onlyPrints = true;
  const program: Command = describeProgram(async (work) => {
    // What stands after the command is nearer to it than what stands before.
    await withContext({ ...program.opts<GlobalFlags>(), ...acting.opts<GlobalFlags>() }, work);
  });
  let acting = program;
  program.hook('preAction', (_program, command) => {
    acting = command;
    onlyPrints = printers.has(command.name()) || (command.name() === 'get' && command.args[1] === '-');
  });
  const run = async (): Promise<void> => void (await program.parseAsync([...words], { from: 'user' }));
  await runToEnd(programName, run, { onlyPrints: () => onlyPrints });
}
