import type { Command } from 'commander';
import { FiletrackerError } from '../../core/errors.ts';
import { programName } from './context.ts';

interface Completed {
  /** Words after the program's name that lead here. */
  readonly path: readonly string[];
  readonly command: Command;
}

function commandsOf(command: Command, path: readonly string[] = []): Completed[] {
  const below = command.commands.flatMap((sub) => commandsOf(sub, [...path, sub.name()]));
  return [{ path, command }, ...below];
}

/** Words that may follow those of a command: its own commands, or what its arguments may be. */
function wordsAfter({ command }: Completed): string {
  const choices = command.registeredArguments.flatMap((argument) =>
    argument.name().includes('|') ? argument.name().split('|') : [],
  );
  return [...command.commands.map((sub) => sub.name()), ...choices].join(' ');
}

function flagsAfter({ command }: Completed): string {
  return [...command.options, { long: '--help' }]
    .map(({ long }) => long ?? '')
    .filter(Boolean)
    .join(' ');
}

function bashScript(program: Command): string {
  const cases = commandsOf(program).map(
    (completed) =>
      `    ${JSON.stringify(completed.path.join(' '))}) words=${JSON.stringify(wordsAfter(completed))} flags=${JSON.stringify(flagsAfter(completed))} ;;`,
  );
  return `# ${programName} completion for bash: source it, or put it into
# ~/.local/share/bash-completion/completions/${programName}
_${programName}() {
  local word="\${COMP_WORDS[COMP_CWORD]}" path="" words="" flags="" index=1 part
  while ((index < COMP_CWORD)); do
    part="\${COMP_WORDS[index]}"
    case "$part" in
      -r | --remote-url | -c | --cache-dir | --cache-size | --hand-out | --tls-ca | --tls-cert | --tls-key) [[ -z "$path" ]] && index=$((index + 1)) ;;
      -*) ;;
      *)
        case "$path" in
          "") path="$part" ;;
          cache) path="$path $part" ;;
        esac
        ;;
    esac
    index=$((index + 1))
  done
  case "$path" in
${cases.join('\n')}
  esac
  # Flags for who asks for them: else they would stand in the way of the names of files.
  [[ "$word" == -* ]] && words="$flags"
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o bashdefault -o default -F _${programName} ${programName}
`;
}

function zshScript(program: Command): string {
  return `#compdef ${programName}
# ${programName} completion for zsh: put it into a folder of $fpath as _${programName}
autoload -U +X bashcompinit && bashcompinit
${bashScript(program)}`;
}

function quoted(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}

function fishScript(program: Command): string {
  const lines = commandsOf(program).flatMap((completed) => {
    const { path, command } = completed;
    const names = command.commands.map((sub) => sub.name());
    const inside = path.map((word) => `__fish_seen_subcommand_from ${word}`);
    const before = names.length > 0 ? [`not __fish_seen_subcommand_from ${names.join(' ')}`] : [];
    const condition = quoted([...inside, ...before].join('; and '));
    const subs = command.commands.map(
      (sub) =>
        `complete -c ${programName} -f -n ${condition} -a ${sub.name()} -d ${quoted(sub.description())}`,
    );
    const flags = command.options.map((option) => {
      const short = option.short === undefined ? '' : ` -s ${option.short.slice(1)}`;
      const long = option.long === undefined ? '' : ` -l ${option.long.slice(2)}`;
      const value = option.required ? ' -r' : '';
      return `complete -c ${programName} -n ${condition}${short}${long}${value} -d ${quoted(option.description)}`;
    });
    return [...subs, ...flags];
  });
  return `# ${programName} completion for fish: put it into ~/.config/fish/completions/${programName}.fish
${lines.join('\n')}
`;
}

/** The script for a shell. @throws FiletrackerError `invalid-argument` for a shell that has none. */
export function completionScript(program: Command, shell: string): string {
  if (shell === 'bash') return bashScript(program);
  if (shell === 'zsh') return zshScript(program);
  if (shell === 'fish') return fishScript(program);
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot complete in "${shell}": the shells are bash, zsh and fish`,
  );
}
