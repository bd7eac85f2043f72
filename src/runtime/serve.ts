import type { FileHandle } from 'node:fs/promises';
import { localMessageOf } from '../core/errors.ts';
import { addressError, hostInUrl } from '../config/listen-address.ts';
import type { ServerConfig } from '../config/server-config.ts';
import { exposureOf } from './guard.ts';
import { isInFolder } from '../config/back-end-config.ts';
import { PidFile } from './pid-file.ts';
import { adoptBeforeServing, prepareFolder, removeUnused } from './store-folder.ts';
import { Log } from '../telemetry/log.ts';
import { ServerSignals, takeoverReason } from './server-signals.ts';
import { makeSharedRates } from '../access/rate-table.ts';
import { Supervisor, type BoundAddress, type SupervisorEvent, type SupervisorOptions } from './supervisor.ts';

export interface ServeOptions {
  /** The file that holds the id of this process while it runs. */
  readonly pidFile?: string | undefined;
  /** The value of `--log-config`, which old scripts pass and which has no effect. */
  readonly ignoredLogConfig?: string | undefined;
}

/** A line to try in a shell of any locale; the version is the current time. */
function exampleCommand(url: string): string {
  return `echo hello | curl -T - "${url}/files/hello.txt?last_modified=$(LC_ALL=C date -u +%d+%b+%Y+%T)"`;
}

/** Base URL for a client on this machine. */
function urlOf(config: ServerConfig, { host: bound, port }: BoundAddress): string {
  const host = bound === '::' || bound === '0.0.0.0' ? '127.0.0.1' : bound;
  const scheme = config.guard.tls === undefined ? 'http' : 'https';
  return `${scheme}://${hostInUrl(host)}:${port}${config.basePath}`;
}

const eventTexts = {
  started: ['debug', 'worker started'],
  ready: ['debug', 'worker ready'],
  died: ['error', 'a worker died; restarting it'],
  failed: ['error', 'a worker cannot start'],
  'takeover-begun': ['info', 'starting a new process that takes over'],
  'takeover-done': ['info', 'another process has taken over'],
  'takeover-failed': ['error', 'the new process cannot take over; this one continues'],
} as const;

/** @param starting whether the program itself reports failures, because the server has not started yet. */
function logEvent({ logger }: Log, event: SupervisorEvent, starting: boolean): void {
  if (event.type === 'failed' && starting) return;
  const [level, text] = eventTexts[event.type];
  const isLast = event.type === 'died' && event.restartInMs === undefined;
  logger[level](event, isLast ? 'every worker stops soon after it starts' : text);
}

/**
 * Runs a server until a signal or a successor stops it. A parent that holds a channel to this process (`--daemon`, a
 * server that this one takes over from) receives the address as soon as the server accepts requests.
 * @throws FiletrackerError if it cannot start.
 */
export async function serve(config: ServerConfig, options: ServeOptions = {}): Promise<void> {
  using log = await Log.open({ level: config.logLevel, file: config.logFile });
  const { logger } = log;
  const signals = new ServerSignals(log);
  if (options.ignoredLogConfig !== undefined) {
    logger.warn({ file: options.ignoredLogConfig }, '--log-config has no effect; use --log-level');
  }
  using pidFile = options.pidFile === undefined ? undefined : await PidFile.claim(options.pidFile);
  const inFolder = isInFolder(config.backEnds);
  const made = inFolder ? await prepareFolder(config.folder) : [];
  if (inFolder) await adoptBeforeServing(config.folder, logger);
  await using rates = await openRates(config, log);
  signals.takeStops();
  const supervisor = await openSupervisor(config, log, {
    ratesDescriptor: rates?.fd,
    pidFileDescriptor: pidFile?.descriptor,
  }).catch(async (error: unknown) => {
    await removeUnused(made);
    throw error;
  });
  const hosts = supervisor.addresses.map(({ host }) => host);
  try {
    const exposure = await exposureOf(hosts, config);
    await pidFile?.write();
    const stopped = signals.untilStop(supervisor);
    reportAddress(config, log, supervisor, exposure);
    const reason = await Promise.race([stopped, supervisor.failed]);
    if (config.drainDelayMs > 0 && reason !== takeoverReason) {
      supervisor.announceStop();
      logger.info(
        { reason, drainDelayMs: config.drainDelayMs },
        '/readyz is 503: still serving for --drain-delay',
      );
      await Promise.race([signals.pause(config.drainDelayMs), supervisor.failed]);
    }
    logger.info({ reason }, 'stopping: no new connections, running requests finish');
  } catch (error) {
    logger.fatal(localMessageOf(error));
    throw error;
  } finally {
    await supervisor.stop();
  }
  logger.info('stopped');
}

/** `undefined` if there is no rate limit, one worker alone keeps it, or the disk is full. */
async function openRates(config: ServerConfig, log: Log): Promise<FileHandle | undefined> {
  if (config.guard.requestsPerSecond === undefined || config.workers === 1) return undefined;
  try {
    await prepareFolder(config.folder);
    return await makeSharedRates(config.folder);
  } catch (error) {
    const state = 'cannot share request rates between workers: each enforces its part of --rate-max';
    log.logger.warn({ err: error }, state);
    return undefined;
  }
}

async function openSupervisor(
  config: ServerConfig,
  log: Log,
  descriptors: Pick<SupervisorOptions, 'ratesDescriptor' | 'pidFileDescriptor'>,
): Promise<Supervisor> {
  const { host, port, workers } = config;
  // A failure that is printed is in the log too if that is a file, because others read it, and later.
  let starting = config.logFile === undefined;
  try {
    const supervisor = await Supervisor.open({
      host,
      port,
      workers,
      program: process.argv[1] ?? '',
      args: process.argv.slice(2),
      ...descriptors,
      onEvent: (event) => logEvent(log, event, starting),
    });
    starting = false;
    return supervisor;
  } catch (error) {
    throw addressError(error, host, port);
  }
}

function reportAddress(
  config: ServerConfig,
  log: Log,
  supervisor: Supervisor,
  exposure: string | undefined,
): void {
  const { folder } = config;
  const { addresses } = supervisor;
  const urls = addresses.map((address) => urlOf(config, address));
  const [url = ''] = urls;
  for (const one of urls) log.logger.info({ url: one, folder }, `listening on ${one}`);
  if (exposure !== undefined) log.logger.warn({ addresses }, exposure);
  process.stderr.write(
    `filetracker-server listens on ${urls.join(' and ')}, store in ${folder}\n` +
      `${exposure === undefined ? '' : `WARNING: ${exposure}\n`}Try: ${exampleCommand(url)}\n`,
  );
  if (process.send !== undefined) {
    process.send({ type: 'ready', url });
    process.disconnect();
  }
}
