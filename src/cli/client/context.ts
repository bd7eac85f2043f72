import { Client } from '../../client/client.ts';
import { parseHandOut, readTlsFiles } from '../../client/client-options.ts';
import type { ClientOptions } from '../../client/client-options.ts';
import type { RetryPolicy } from '../../client/retries.ts';
import { parseDurationMs } from '../../core/quantities.ts';
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

/** Starting a server again takes seconds, and people and scripts would rather wait for it than begin anew. */
const defaultRetries = { retryForMs: 20_000, retryUnknownForMs: 5000 };
/** So that a server that is back is soon found to be. */
const longestPauseMs = 2000;

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
    retries: { longestPauseMs, ...retriesOf(flags) },
    tls: readTlsFiles({ ca: flags.tlsCa, cert: flags.tlsCert, key: flags.tlsKey }),
    onWarning: (message) => tell(`${programName}: ${message}`),
  };
  const client = Client.fromEnvironment(options);
  const progress = (label: string): Progress => new Progress(label, !quiet && !json);
  return { client, signal, json, verbose, quiet, offline, progress };
}

function retriesOf({ retryFor }: GlobalFlags): Partial<RetryPolicy> {
  if (retryFor !== undefined) return { retryForMs: parseDurationMs(retryFor) };
  // What the environment says is not hidden.
  return (process.env['FILETRACKER_RETRY_FOR'] ?? '') === '' ? defaultRetries : {};
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
