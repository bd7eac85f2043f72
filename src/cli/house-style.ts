import type { Command } from 'commander';
import { withoutSecrets } from '../core/shown-text.ts';
import { helpWidth } from './output.ts';

/**
 * Makes a command, and those below it, tell help and mistakes as all programs of ours do: mistakes in one line that
 * names the program, and where the help is.
 */
export function inHouseStyle(command: Command, program: string): Command {
  command
    .configureHelp({ helpWidth })
    .helpOption('-h, --help', 'show this help')
    .configureOutput({
      outputError: (text, write) => write(withoutSecrets(text.replace(/^error: /, `${program}: `))),
    })
    .showHelpAfterError(`See ${program} --help`)
    .exitOverride();
  for (const sub of command.commands) inHouseStyle(sub, `${program} ${sub.name()}`);
  return command;
}
