import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { errnoOf, FiletrackerError } from '../core/errors.ts';
import type { ServerConfig } from '../config/server-config.ts';

/** Sent by the background process to the one that started it. */
export type DaemonMessage =
  { readonly type: 'ready'; readonly url: string } | { readonly type: 'failed'; readonly message: string };

function isDaemonMessage(message: unknown): message is DaemonMessage {
  return typeof message === 'object' && message !== null && 'type' in message;
}

/** In the background process: reports why it cannot start, if the process that started it is still there. */
export function reportFailure(message: string): void {
  if (process.send === undefined || !process.connected) return;
  process.send({ type: 'failed', message } satisfies DaemonMessage);
  process.disconnect();
}

function openLog(path: string): number {
  try {
    return openSync(path, 'a');
  } catch (error) {
    throw new FiletrackerError(
      'invalid-argument',
      `Cannot write the log "${path}": ${errnoOf(error) ?? 'it failed'}`,
      { cause: error },
    );
  }
}

/** Resolves to the base URL when the process serves. */
function untilReady(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    const fail = (state: string): void =>
      reject(new FiletrackerError('unavailable', `Cannot run in the background: ${state}`));
    child.once('error', (error) => fail(error.message));
    child.once('exit', (code, signal) => fail(`the process ended (${code ?? signal})`));
    child.on('message', (message) => {
      if (!isDaemonMessage(message)) return;
      if (message.type === 'ready') resolve(message.url);
      else reject(new FiletrackerError('unavailable', message.message));
    });
  });
}

/**
 * Starts the same program in the background and waits until it accepts requests.
 * @throws FiletrackerError if it cannot start, with its reason.
 */
export async function startDaemon(config: ServerConfig, args: readonly string[]): Promise<void> {
  if (config.logFile === undefined) {
    throw new FiletrackerError(
      'invalid-argument',
      'Cannot run in the background: name a file for the log with -L',
    );
  }
  const log = openLog(config.logFile);
  const own = args.filter((word) => word !== '--daemon');
  // Its error output goes to the log as well: the terminal may be gone by then.
  const child = spawn(process.execPath, [process.argv[1] ?? '', ...own], {
    detached: true,
    stdio: ['ignore', 'ignore', log, 'ipc'],
  });
  try {
    const url = await untilReady(child);
    process.stdout.write(`filetracker-server runs as process ${child.pid} on ${url}\n`);
  } finally {
    closeSync(log);
    if (child.connected) child.disconnect();
    child.unref();
  }
}
