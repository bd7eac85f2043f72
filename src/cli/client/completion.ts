import { longFlag, type Setting } from '../../config/setting.ts';
import { cannot } from '../../core/errors.ts';
import type { CommandSpec } from '../commands.ts';
import { cleanerSpec, migrateSpec, recoverSpec } from '../maintenance-commands.ts';
import { serverSpec } from '../server/commands.ts';
import { clientSpec } from './commands.ts';

const programs = [clientSpec, serverSpec, migrateSpec, recoverSpec, cleanerSpec];

interface Completed {
  /** The program and the command, such as `filetracker cache pin`. */
  readonly path: readonly string[];
  readonly spec: CommandSpec;
  readonly settings: readonly Setting[];
}

function commandsOf(spec: CommandSpec, before: readonly string[] = [], global = spec.global): Completed[] {
  const path = [...before, spec.name];
  const sections = [...(spec.sections ?? []), ...(global === undefined ? [] : [global])];
  const settings = sections.flatMap(({ settings }) => Object.values<Setting>(settings));
  const below = (spec.commands ?? []).flatMap((sub) => commandsOf(sub, path, global));
  return [{ path, spec, settings }, ...below];
}

const allCommands = programs.flatMap((spec) => commandsOf(spec));

/** Words that may follow a command: its own commands, or the choices of its arguments. */
function wordsAfter({ args = {}, commands = [] }: CommandSpec): readonly string[] {
  const choices = Object.keys(args).flatMap((form) =>
    form.includes('|') ? form.replaceAll(/[<>[\]]/g, '').split('|') : [],
  );
  return [...commands.map(({ name }) => name), ...choices];
}

function takesValue({ flags }: Setting): boolean {
  return /[<[]/.test(flags);
}

/** The spellings of a setting, `-p` and `--port`. */
function spellings({ flags, aliases = [] }: Setting, { old = false } = {}): readonly string[] {
  return [flags, ...(old ? aliases : [])].flatMap((text) => text.match(/(?<![\w-])--?[\w-]+/g) ?? []);
}

function bashScript(): string {
  const cases = allCommands.map(({ path, spec, settings }) => {
    const values = settings.filter(takesValue).flatMap((one) => spellings(one, { old: true }));
    const flags = [...settings.map(({ flags }) => longFlag(flags)), '--help'];
    const choices = settings.filter(({ kind }) => kind.words !== undefined);
    const words = choices.map((one) => `${longFlag(one.flags)}=${one.kind.words?.join(',')}`);
    const parts = { words: wordsAfter(spec), flags, values, choices: words };
    const text = Object.entries(parts).map(([name, list]) => `${name}=${JSON.stringify(list.join(' '))}`);
    return `      ${JSON.stringify(path.join(' '))}) ${text.join(' ')} ;;`;
  });
  return `# Completion of the filetracker programs for bash: source it, or put it into
# ~/.local/share/bash-completion/completions/filetracker
_filetracker() {
  local word="\${COMP_WORDS[COMP_CWORD]}" path="\${COMP_WORDS[0]##*/}" index=1 skip="" part
  local words="" flags="" values="" choices=""
  _filetracker_look() {
    case "$1" in
${cases.join('\n')}
      *) return 1 ;;
    esac
  }
  _filetracker_look "$path"
  while ((index < COMP_CWORD)); do
    part="\${COMP_WORDS[index]}"
    if [[ -n "$skip" ]]; then skip=""
    elif [[ " $values " == *" $part "* ]]; then skip="$part"
    elif [[ "$part" != -* ]] && _filetracker_look "$path $part"; then path="$path $part"
    fi
    index=$((index + 1))
  done
  # Flags only after a dash: otherwise they would mix with the names of files.
  [[ "$word" == -* ]] && words="$flags"
  if [[ -n "$skip" ]]; then
    words=""
    for part in $choices; do [[ "$part" == "$skip="* ]] && part="\${part#*=}" && words="\${part//,/ }"; done
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o bashdefault -o default -F _filetracker ${programs.map(({ name }) => name).join(' ')}
`;
}

function zshScript(): string {
  return `#compdef ${programs.map(({ name }) => name).join(' ')}
# Completion of the filetracker programs for zsh: put it into a folder of $fpath as _filetracker
autoload -U +X bashcompinit && bashcompinit
${bashScript()}`;
}

function quoted(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}

function fishScript(): string {
  const lines = allCommands.flatMap(({ path: [program = '', ...path], spec, settings }) => {
    const inside = path.map((word) => `__fish_seen_subcommand_from ${word}`);
    const names = (spec.commands ?? []).map(({ name }) => name);
    const before = names.length > 0 ? [`not __fish_seen_subcommand_from ${names.join(' ')}`] : [];
    const conditions = [...inside, ...before];
    const when = conditions.length === 0 ? '' : ` -n ${quoted(conditions.join('; and '))}`;
    const subs = (spec.commands ?? []).map(
      ({ name, summary, description }) =>
        `complete -c ${program} -f${when} -a ${name} -d ${quoted(summary ?? description)}`,
    );
    const flags = settings.map((setting) => {
      const names = spellings(setting).map((name) =>
        name.startsWith('--') ? ` -l ${name.slice(2)}` : ` -s ${name.slice(1)}`,
      );
      const words = setting.kind.words === undefined ? '' : ` -f -a ${quoted(setting.kind.words.join(' '))}`;
      const value = takesValue(setting) ? ` -r${words}` : '';
      return `complete -c ${program}${when}${names.join('')}${value} -d ${quoted(setting.help)}`;
    });
    return [...subs, ...flags];
  });
  return `# Completion of the filetracker programs for fish: put it into ~/.config/fish/conf.d/filetracker.fish
${lines.join('\n')}
`;
}

/** The completion script of all programs for a shell. @throws FiletrackerError `invalid-argument`. */
export function completionScript(shell: string): string {
  if (shell === 'bash') return bashScript();
  if (shell === 'zsh') return zshScript();
  if (shell === 'fish') return fishScript();
  throw cannot('invalid-argument', `complete in "${shell}"`, 'the shells are bash, zsh and fish');
}
