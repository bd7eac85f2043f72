import { readFile, unlink, writeFile, type FileHandle } from 'node:fs/promises';
import { errnoOf, FiletrackerError } from '../core/errors.ts';
import { adoptBeforeServing } from './adopt-before-serving.ts';
import type { ServerConfig } from './config.ts';
import { exposureOf } from './guard.ts';
import { liesInFolder } from './engine-config.ts';
import { prepareFolder } from './prepare-folder.ts';
import { Log } from './log.ts';
import { ServerSignals } from './server-signals.ts';
import { makeSharedRates } from './shared-rates.ts';
import {
  addressProblem,
  isTakeover,
  Supervisor,
  type BoundAddress,
  type SupervisorEvent,
} from './supervisor.ts';

export interface ServeOptions {
  /** Where the number of this process is written while it runs. */
  readonly pidFile?: string | undefined;
  /** A setting of old scripts that has no meaning here. */
  readonly ignoredLogConfig?: string | undefined;
}

/** A line to try in a shell of any language; the version is the time it is run at. */
function exampleCommand(url: string): string {
  return `echo hello | curl -T - "${url}/files/hello.txt?last_modified=$(LC_ALL=C date -u +%d+%b+%Y+%T)"`;
}

/**
 * Refuses the pid file of a server that runs: what ends that one by its file would end this one, and this one would
 * take the file with it when it ends. A file of a process that is gone, or is another program now, is free.
 */
async function checkPidFile(path: string): Promise<void> {
  const pid = Number(await readFile(path, 'utf8').catch(() => ''));
  if (!Number.isSafeInteger(pid) || pid <= 0 || pid === process.pid || !(await isServer(pid))) return;
  throw new FiletrackerError(
    'unavailable',
    `Cannot write the file "${path}": it is that of the server that runs as process ${pid}; stop that one, or name another file`,
  );
}

async function isServer(pid: number): Promise<boolean> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (errnoOf(error) !== 'EPERM') return false;
  }
  const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => undefined);
  return command === undefined || command.includes('filetracker-server');
}

async function writePidFile(path: string): Promise<void> {
  try {
    await writeFile(path, `${process.pid}\n`);
  } catch (error) {
    const state = errnoOf(error) ?? 'it failed';
    throw new FiletrackerError('invalid-argument', `Cannot write the file "${path}": ${state}`, {
      cause: error,
    });
  }
}

/** After a take-over the file is the successor's. */
async function removePidFile(path: string): Promise<void> {
  const text = await readFile(path, 'utf8').catch(() => '');
  if (Number(text) === process.pid) await unlink(path).catch(() => undefined);
}

/** Base URL for a client on this machine. */
function urlOf(config: ServerConfig, { host: bound, port }: BoundAddress): string {
  const host = bound === '::' || bound === '0.0.0.0' ? '127.0.0.1' : bound;
  const scheme = config.guard.tls === undefined ? 'http' : 'https';
  return `${scheme}://${host.includes(':') ? `[${host}]` : host}:${port}${config.basePath}`;
}

/** @param told whether what fails is told anyway, in a line of its own, because the server is only being started. */
function logEvent(log: Log, event: SupervisorEvent, told: boolean): void {
  const { logger } = log;
  switch (event.type) {
    case 'started':
    case 'ready':
      logger.debug(event, `worker ${event.type}`);
      break;
    case 'died':
      logger.error(event, 'a worker died; it is started again');
      break;
    case 'failed':
      if (!told) logger.error(event, 'a worker cannot start');
      break;
    case 'takeover-begun':
      logger.info(event, 'starting the program anew to take over');
      break;
    case 'takeover-done':
      logger.info('another process has taken over');
      break;
    case 'takeover-failed':
      logger.error(event, 'the new process cannot take over; this one goes on');
      break;
  }
}

/**
 * Runs a server until it is told to stop. A parent that holds a channel to this process (a daemon's starter, a
 * server that this one takes over from) is told the address as soon as requests are taken.
 * @throws FiletrackerError where it can't be started.
 */
export async function serve(config: ServerConfig, options: ServeOptions = {}): Promise<void> {
  using log = await Log.open({ level: config.logLevel, file: config.logFile });
  const { logger } = log;
  const signals = new ServerSignals(log);
  if (options.ignoredLogConfig !== undefined) {
    logger.warn({ file: options.ignoredLogConfig }, '--log-config has no meaning here; use --log-level');
  }
  const { pidFile } = options;
  // In a take-over the file is the predecessor's, and becomes this one's.
  if (pidFile !== undefined && !isTakeover()) await checkPidFile(pidFile);
  if (liesInFolder(config.engines)) {
    await prepareFolder(config.folder);
    await adoptBeforeServing(config.folder, logger);
  }
  await using rates = await openRates(config, log);
  const supervisor = await openSupervisor(config, log, rates);
  const hosts = supervisor.addresses.map(({ host }) => host);
  try {
    const exposure = await exposureOf(hosts, config, config.guard);
    if (pidFile !== undefined) await writePidFile(pidFile);
    const stopped = signals.untilStop(supervisor);
    tellAddress(config, log, supervisor, exposure);
    const reason = await stopped;
    logger.info({ reason }, 'stopping: no new connections, running requests finish');
  } finally {
    await supervisor.stop();
    if (pidFile !== undefined) await removePidFile(pidFile);
  }
  logger.info('stopped');
}

/** Undefined where there is no rate to keep, one worker alone keeps it, or the disk has no room. */
async function openRates(config: ServerConfig, log: Log): Promise<FileHandle | undefined> {
  if (config.guard.requestsPerSecond === undefined || config.workers === 1) return undefined;
  try {
    await prepareFolder(config.folder);
    return await makeSharedRates(config.folder);
  } catch (error) {
    log.logger.warn(
      { err: error },
      'no room for the rates of all workers: each keeps to its part of --rate-max',
    );
    return undefined;
  }
}

async function openSupervisor(
  config: ServerConfig,
  log: Log,
  rates: FileHandle | undefined,
): Promise<Supervisor> {
  const { host, port, workers } = config;
  // A file is read by others, and later, than what is printed.
  let told = config.logFile === undefined;
  try {
    const supervisor = await Supervisor.open({
      host,
      port,
      workers,
      program: process.argv[1] ?? '',
      args: process.argv.slice(2),
      ratesDescriptor: rates?.fd,
      onEvent: (event) => logEvent(log, event, told),
    });
    told = false;
    return supervisor;
  } catch (error) {
    const problem = addressProblem(error, host, port);
    if (problem === undefined) throw error;
    const code = errnoOf(error) === 'EADDRINUSE' ? 'unavailable' : 'invalid-argument';
    throw new FiletrackerError(code, problem, { cause: error });
  }
}

function tellAddress(
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
