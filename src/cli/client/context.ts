import { asShown } from '../../core/shown-text.ts';
import { setMaxListeners } from 'node:events';
import { Client } from '../../client/client.ts';
import { parseHandOut, parseRetryFor } from '../../client/client-options.ts';
import type { ClientOptions } from '../../client/client-options.ts';
import { readTlsFiles } from '../../client/http/certificate-files.ts';
import { patientRetries } from '../../client/http/retries.ts';
import { isFiletrackerError } from '../../core/errors.ts';
import {
  exitCodeOfSignal,
  exitCodes,
  printJson,
  printLine,
  tell,
  tellError,
  type StopSignal,
} from '../output.ts';
import type { GlobalFlags } from './commands.ts';
import { Progress } from './progress.ts';

export const programName = 'filetracker';

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

/** Whether the cache takes the place of the server: there is none, or the client is offline. */
export function servesFromCache({ client, offline }: CommandContext): boolean {
  return offline || client.remote === undefined;
}

/** Opens the client that flags and environment describe; flags win. */
function openContext(flags: GlobalFlags, signal: AbortSignal): CommandContext {
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

/** Runs a command with a client that is closed at its end; SIGINT and SIGTERM stop it. */
export async function withContext(
  flags: GlobalFlags,
  work: (context: CommandContext) => Promise<void>,
): Promise<void> {
  const stop = new AbortController();
  // Every running transfer listens to it, and Node warns of more than ten.
  setMaxListeners(0, stop.signal);
  let stoppedBy: StopSignal | undefined;
  const onSignal = (signal: StopSignal): void => {
    stoppedBy = signal;
    stop.abort(new Error(`stopped by ${signal}`));
    // The second signal does not wait for anything.
    process.once(signal, () => process.exit(exitCodeOfSignal(signal)));
  };
  process.once('SIGINT', onSignal);
  process.once('SIGTERM', onSignal);
  try {
    const context = openContext(flags, stop.signal);
    await using _client = context.client;
    await work(context);
  } catch (error) {
    if (stoppedBy === undefined) throw error;
    // Which step the signal interrupted is chance, so only the signal is reported.
    tell(`${programName}: stopped by ${stoppedBy}`);
    process.exitCode = exitCodeOfSignal(stoppedBy);
  } finally {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  }
}

/**
 * Works on one name after another. A name that does not exist is reported and does not stop the others; the exit code
 * of the program is then 3.
 */
export async function forEachName(
  names: readonly string[],
  work: (name: string) => Promise<void>,
): Promise<void> {
  for (const name of names) {
    try {
      await work(name);
    } catch (error) {
      if (!isFiletrackerError(error, 'not-found')) throw error;
      tellError(programName, error);
      process.exitCode = exitCodes.notFound;
    }
  }
}

/** Prints a result: with `--json` one object per line, else a text; an empty text is not printed. */
export function printResult(context: CommandContext, value: unknown, text: string): void {
  if (context.json) printJson(value);
  else if (text !== '') printLine(text);
}

/** Prints a text that only `--verbose` shows. */
export function tellDetail(context: CommandContext, text: string): void {
  if (context.verbose) tell(text);
}
