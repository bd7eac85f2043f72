// The commands of a program, as data: the command line, its help and shell completion are made from it.
import { Command, Option } from 'commander';
import { defaultOf, flag, memberOf, section, type Section, type Setting } from '../config/setting.ts';
import { release } from '../core/release.ts';
import { withoutSecrets } from '../core/shown-text.ts';

export interface CommandSpec {
  readonly name: string;
  readonly description: string;
  /** A shorter description for the list of commands. */
  readonly summary?: string;
  /** Arguments as commander writes them, `<name>` or `[names...]`, with their help. */
  readonly args?: Readonly<Record<string, string>>;
  readonly sections?: readonly Section[];
  /** Settings that may stand before or after each command. */
  readonly global?: Section;
  readonly commands?: readonly CommandSpec[];
  /** Printed below the help. */
  readonly notes?: string;
}

/** Method syntax, so that actions may declare the types of their arguments. */
type Action = { act(...words: unknown[]): Promise<void> }['act'];
/** By the words of the command, `token add`; the program itself is the empty text. */
export type Actions = Readonly<Record<string, Action>>;

/** Flags of commands that print a report. */
export const reportSection = section('Output', {
  quiet: flag('-q, --quiet', 'print only errors', { aliases: ['-s, --silent'] }),
  json: flag('--json', 'print the report as JSON'),
});

/** Help texts are made for 80 columns, and read badly when much wider. */
const helpWidth = 80;

/**
 * Runs a command of a program.
 * @param words the command line; `help token add` is `token add --help`.
 */
export async function runCommand(
  spec: CommandSpec,
  actions: Actions,
  words: readonly string[] = process.argv.slice(2),
): Promise<void> {
  const topic = words[1];
  const isKnown = topic === undefined || spec.commands?.some(({ name }) => name === topic) === true;
  const helps = words[0] === 'help' && spec.commands !== undefined && isKnown;
  const given = helps ? [...words.slice(1), '--help'] : [...words];
  await describe(spec, actions, []).parseAsync(given, { from: 'user' });
}

function describe(
  spec: CommandSpec,
  actions: Actions,
  path: readonly string[],
  global = spec.global,
): Command {
  const { name, description, summary = '', args = {}, sections = [], commands = [], notes } = spec;
  const command = new Command(name).description(description).summary(summary);
  for (const [form, help] of Object.entries(args)) command.argument(form, help);
  for (const one of sections) addSection(command, one);
  if (spec.global !== undefined) addSection(command, spec.global);
  else if (global !== undefined && commands.length === 0) addGlobal(command, global);
  command.optionsGroup('Help:');
  if (path.length === 0) command.version(release, '-V, --version', 'show the version');
  if (notes !== undefined) command.addHelpText('after', notes);
  const action =
    actions[
      path
        .slice(1)
        .concat(path.length > 0 ? name : [])
        .join(' ')
    ];
  if (action !== undefined) command.action(action);
  const title = [...path, name].join(' ');
  applyStyle(command, title);
  for (const sub of commands) command.addCommand(describe(sub, actions, [...path, name], global));
  if (commands.length > 0) {
    command.enablePositionalOptions().helpCommand('help [command]', 'show the help of a command');
    if (action !== undefined) refuseMisplacedFlags(command);
  }
  return command;
}

/** Prints help and errors as all programs do: an error in one line that names the program, and where the help is. */
function applyStyle(command: Command, title: string): void {
  command
    .configureHelp({ helpWidth, showGlobalOptions: false, subcommandTerm })
    .helpOption('-h, --help', 'show this help')
    .configureOutput({
      outputError: (text, write) => write(withoutSecrets(text.replace(/^error: /, `${title}: `))),
    })
    .showHelpAfterError(`See ${title} --help`)
    .allowExcessArguments(false)
    .exitOverride();
}

/** A flag of the program that stands before a command would have no effect on it. */
function refuseMisplacedFlags(command: Command): void {
  command.hook('preSubcommand', (_program, sub) => {
    const given = Object.keys(command.opts()).some((key) => command.getOptionValueSource(key) === 'cli');
    if (given) command.error(`error: flags follow the command "${sub.name()}"`);
  });
}

/** The name and the arguments of a command, without its options, so that the list of commands fits. */
function subcommandTerm(command: Command): string {
  const words = command.registeredArguments.map((argument) => {
    const name = `${argument.name().toUpperCase()}${argument.variadic ? '...' : ''}`;
    return argument.required ? name : `[${name}]`;
  });
  return [command.name(), ...words].join(' ');
}

/** Another spelling of a setting, for scripts written for older releases. */
class Alias extends Option {
  readonly #member: string;

  constructor(flags: string, setting: Setting) {
    super(flags, setting.help);
    this.#member = memberOf(setting.flags);
    this.hideHelp();
  }

  override attributeName(): string {
    return this.#member;
  }
}

function optionOf(setting: Setting, flags = setting.flags): Option {
  const initially = setting.required === true ? undefined : defaultOf(setting);
  const help = initially === undefined ? setting.help : `${setting.help} (default: ${initially})`;
  const option = new Option(flags, help).makeOptionMandatory(setting.required ?? false);
  if (setting.many !== true || option.variadic) return option;
  return option.argParser((value: string, before: readonly string[] | undefined) => [
    ...(before ?? []),
    value,
  ]);
}

function addSection(command: Command, { heading, settings }: Section): void {
  for (const setting of Object.values(settings)) {
    command.addOption(optionOf(setting).helpGroup(`${heading}:`));
    for (const flags of setting.aliases ?? []) command.addOption(new Alias(flags, setting));
  }
}

/** The help of a command shows only `--json` of them. A letter that the command uses keeps its meaning there. */
function addGlobal(command: Command, { settings }: Section): void {
  const letters = new Set(command.options.map(({ short }) => short));
  for (const setting of Object.values(settings)) {
    const [short] = setting.flags.split(', ');
    const flags = letters.has(short) ? setting.flags.slice(setting.flags.indexOf('--')) : setting.flags;
    const option = optionOf(setting, flags);
    command.addOption(option.hideHelp(option.long !== '--json'));
  }
}
