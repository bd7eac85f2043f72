import { readTlsFiles } from '../../client/http/certificate-files.ts';
import { Client } from '../../client/client.ts';
import { parseHandOut, parseRetryFor } from '../../client/client-options.ts';
import type { ClientOptions } from '../../client/client-options.ts';
import { patientRetries } from '../../client/http/retries.ts';
import { asShown } from '../shown-text.ts';
import { printJson, printLine, tell } from '../output.ts';
import { Progress } from './progress.ts';

export const programName = 'filetracker';

/** The flags before the command. */
export interface GlobalFlags {
  readonly remoteUrl?: string;
  readonly cacheDir?: string;
  readonly cacheSize?: string;
  readonly handOut?: string;
  readonly retryFor?: string;
  readonly tlsCa?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly offline?: boolean;
  readonly verify?: boolean;
  readonly verbose?: boolean;
  readonly quiet?: boolean;
  readonly json?: boolean;
}

/** What a command works with. */
export interface CommandContext {
  readonly client: Client;
  readonly signal: AbortSignal;
  readonly json: boolean;
  readonly verbose: boolean;
  readonly quiet: boolean;
  readonly offline: boolean;
  /** A bar for one transfer or many. */
  progress(label: string): Progress;
}

/** Whether the cache stands for the server: there is none, or it is not to be asked. */
export function servesFromCache({ client, offline }: CommandContext): boolean {
  return offline || client.remote === undefined;
}

/** Opens the client that flags and environment describe; flags win. */
export function openContext(flags: GlobalFlags, signal: AbortSignal): CommandContext {
  const { verbose = false, quiet = false, json = false, offline = false } = flags;
  const options: ClientOptions = {
    remoteUrl: flags.remoteUrl,
    cacheDir: flags.cacheDir,
    cacheSize: flags.cacheSize,
    handOut: flags.handOut === undefined ? undefined : parseHandOut(flags.handOut),
    offline: flags.offline,
    verify: flags.verify,
    retries: { ...patientRetries, ...parseRetryFor(flags.retryFor ?? process.env['FILETRACKER_RETRY_FOR']) },
    tls: readTlsFiles({ ca: flags.tlsCa, cert: flags.tlsCert, key: flags.tlsKey }),
    onWarning: (message) => tell(`${programName}: ${asShown(message)}`),
  };
  const client = Client.fromEnvironment(options);
  const progress = (label: string): Progress => new Progress(label, !quiet && !json);
  return { client, signal, json, verbose, quiet, offline, progress };
}

/** Prints a result: an object a line with `--json`, else text; an empty text is not printed. */
export function printResult(context: CommandContext, value: unknown, text: string): void {
  if (context.json) printJson(value);
  else if (text !== '') printLine(text);
}

/** Prints what only `--verbose` shows. */
export function tellDetail(context: CommandContext, text: string): void {
  if (context.verbose) tell(text);
}
