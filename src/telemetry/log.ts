import { once } from 'node:events';
import { closeSync, openSync, writeSync } from 'node:fs';
import type { DestinationStream, Logger } from 'pino';
import { pino, stdTimeFunctions } from 'pino';
import { cannot, errnoOf } from '../core/errors.ts';
import type { LogLevel } from '../config/server-config.ts';
import { boundedText } from '../core/shown-text.ts';
import { mayColor } from '../core/terminal.ts';

export interface LogOptions {
  readonly level: LogLevel;
  /** Absolute path of a file to append to; `undefined` for the standard output. */
  readonly file?: string | undefined;
}

/** Lines are written together: when this much has gathered, or after this time. */
const gatheredSizeBytes = 64 * 1024;
const flushIntervalMs = 200;
/** Lines that wait for a slow disk; further lines are lost. */
const waitingSizeMaxBytes = 16 * 1024 * 1024;

const standardOutput = 1;
const writeTriesMax = 100;
const writePauseMs = 10;

type Destination = ReturnType<typeof pino.destination>;

/** Causes below a cause are logged down to this depth. */
const causesMax = 3;

/**
 * An error as it is logged: each text is bounded, and of properties that a library attached only plain values are kept,
 * because others may contain whole requests and their bodies.
 */
function errorInLog(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error)) return boundedText(String(error));
  const { name, message, stack, cause } = error;
  const attached = Object.entries(error).flatMap(([key, value]: [string, unknown]) => {
    if (typeof value === 'string') return [[key, boundedText(value)]];
    return typeof value === 'number' || typeof value === 'boolean' ? [[key, value]] : [];
  });
  return {
    ...(Object.fromEntries(attached) as Record<string, unknown>),
    type: name,
    message: boundedText(message),
    stack: boundedText(stack ?? ''),
    ...(cause !== undefined && depth < causesMax && { cause: errorInLog(cause, depth + 1) }),
  };
}

const unwritable: Readonly<Record<string, string>> = {
  ENOENT: 'its folder does not exist; create it first',
  ENOTDIR: 'a part of its path is a file, not a folder',
  EISDIR: 'it is a folder; name a file',
  EACCES: 'permission is denied',
  EROFS: 'its file system is read-only',
};

/** @throws FiletrackerError `invalid-argument`. Checked here because pino's own stream fails again when the process exits. */
function checkWritable(file: string): void {
  try {
    closeSync(openSync(file, 'a'));
  } catch (error) {
    const errno = errnoOf(error) ?? 'failed';
    const state = unwritable[errno] ?? `the system reports ${errno}`;
    throw cannot('invalid-argument', `write the log "${file}"`, state, { cause: error });
  }
}

async function openDestination(file: string | undefined): Promise<Destination> {
  if (file !== undefined) checkWritable(file);
  const dest = file ?? standardOutput;
  const destination = pino.destination({ dest, sync: false, minLength: 0, maxLength: waitingSizeMaxBytes });
  if (file !== undefined) await once(destination, 'ready');
  return destination;
}

/** Readable lines for a terminal. The library is loaded only for them. */
async function prettyStream(destination: Destination): Promise<DestinationStream> {
  const { PinoPretty } = await import('pino-pretty');
  return PinoPretty({
    colorize: mayColor(process.stdout),
    destination,
    translateTime: 'SYS:HH:MM:ss.l',
    ignore: 'pid',
  });
}

/**
 * Gathers lines before they go to pino's stream, which takes four times as long per piece as it takes to make a line.
 *
 * Invariant: lines leave in order of arrival, none later than one interval after it.
 */
class LineGatherer implements DestinationStream {
  readonly #target: DestinationStream;
  readonly #timer: NodeJS.Timeout;
  readonly #forPeople: boolean;
  #lines = '';

  constructor(target: DestinationStream, forPeople: boolean) {
    this.#target = target;
    this.#forPeople = forPeople;
    this.#timer = setInterval(() => this.flush(), flushIntervalMs).unref();
  }

  write(line: string): void {
    this.#lines += line;
    if (this.#lines.length >= gatheredSizeBytes) this.flush();
  }

  flush(): void {
    if (this.#lines === '') return;
    const lines = this.#lines;
    this.#lines = '';
    this.#target.write(lines);
  }

  /** Stops, and returns the lines that are not written yet; lines for people are written first. */
  end(): string {
    clearInterval(this.#timer);
    if (this.#forPeople) this.flush();
    const lines = this.#lines;
    this.#lines = '';
    return lines;
  }
}

/** Whether the whole text was written, within a second if the reader is slow. */
function writeWhole(file: string | undefined, text: string): boolean {
  const bytes = Buffer.from(text);
  const descriptor = file === undefined ? standardOutput : openSync(file, 'a');
  try {
    let written = 0;
    for (let tries = 0; written < bytes.length && tries < writeTriesMax;) {
      try {
        written += writeSync(descriptor, bytes, written);
      } catch (error) {
        if (errnoOf(error) !== 'EAGAIN') return false;
        tries += 1;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, writePauseMs);
      }
    }
    return written === bytes.length;
  } finally {
    if (file !== undefined) closeSync(descriptor);
  }
}

/**
 * The log of a program: structured lines, gathered and written without waiting. Gathered lines are lost if the process
 * is killed; `close` writes them.
 */
export class Log {
  readonly logger: Logger;
  readonly #lines: LineGatherer;
  readonly #destination: Destination;
  readonly #file: string | undefined;
  /** Whether the last write failed. */
  #failing = false;

  private constructor(
    logger: Logger,
    lines: LineGatherer,
    destination: Destination,
    file: string | undefined,
  ) {
    this.logger = logger;
    this.#lines = lines;
    this.#destination = destination;
    this.#file = file;
    // An unwritable log must not stop the server.
    destination.on('error', () => (this.#failing = true)).on('write', () => (this.#failing = false));
  }

  /** @throws FiletrackerError `invalid-argument` if the file cannot be written. */
  static async open(options: LogOptions): Promise<Log> {
    const destination = await openDestination(options.file);
    const forPeople = options.file === undefined && process.stdout.isTTY;
    const lines = new LineGatherer(forPeople ? await prettyStream(destination) : destination, forPeople);
    const logger = pino(
      {
        level: options.level,
        base: { pid: process.pid },
        timestamp: stdTimeFunctions.isoTime,
        serializers: { err: errorInLog },
      },
      lines,
    );
    return new Log(logger, lines, destination, options.file);
  }

  /** Writes a line that the caller made in pino's form; it ends with a line break. */
  writeLine(line: string): void {
    this.#lines.write(line);
  }

  /** Opens the file again, after it was moved away. */
  reopen(): void {
    if (this.#file === undefined) return;
    this.#lines.flush();
    this.#destination.reopen();
  }

  /** Writes the gathered lines. Idempotent. */
  close(): void {
    try {
      const last = this.#lines.end();
      // If writes fail, as on a full disk, a flush retries forever and the process would never end.
      if (this.#failing || !writeWhole(this.#file, last)) this.#destination.destroy();
      else this.#destination.flushSync();
    } catch {
      // The descriptor is not open yet, or closed; there is nowhere to report it.
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
