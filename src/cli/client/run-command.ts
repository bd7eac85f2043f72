import { setMaxListeners } from 'node:events';
import { exitCodeOfSignal, tell, type StopSignal } from '../output.ts';
import { openContext, programName } from './context.ts';
import type { CommandContext, GlobalFlags } from './context.ts';

/** Runs a command with a client that is closed at its end, and is stopped by SIGINT and SIGTERM. */
export async function withContext(
  flags: GlobalFlags,
  work: (context: CommandContext) => Promise<void>,
): Promise<void> {
  const stop = new AbortController();
  // Every transfer under way listens to it, and Node warns of more than ten.
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
    // What was being done when the signal came is chance: that it was stopped is what there is to tell.
    tell(`${programName}: stopped by ${stoppedBy}`);
    process.exitCode = exitCodeOfSignal(stoppedBy);
  } finally {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  }
}
