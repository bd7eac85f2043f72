import { once } from 'node:events';
import { closeSync, openSync, writeSync } from 'node:fs';
import type { DestinationStream, Logger } from 'pino';
import { pino, stdTimeFunctions } from 'pino';
import { FiletrackerError, errnoOf } from '../core/errors.ts';
import type { LogLevel } from '../config/server-config.ts';
import { mayColor } from '../core/terminal.ts';
import { errorInLog } from './error-in-log.ts';

export interface LogOptions {
  readonly level: LogLevel;
  /** Absolute path of a file to append to; undefined for the standard output. */
  readonly file?: string | undefined;
}

/** Lines are handed to the system together: when so much has gathered, or after so long. */
const gatheredSizeBytes = 64 * 1024;
const flushIntervalMs = 200;
/** Lines that wait for a disk that does not take them; what comes beyond is lost. */
const waitingSizeMaxBytes = 16 * 1024 * 1024;

const standardOutput = 1;
const writeTriesMax = 100;
const writePauseMs = 10;

type Destination = ReturnType<typeof pino.destination>;

const unwritable: Readonly<Record<string, string>> = {
  ENOENT: 'its folder does not exist; create it first',
  ENOTDIR: 'a part of its path is a file and not a folder',
  EISDIR: 'it is a folder; name a file',
  EACCES: 'permission is denied',
  EROFS: 'its file system is read-only',
};

/** @throws FiletrackerError `invalid-argument`. Tried here because pino's own stream fails once more when the process exits. */
function checkWritable(file: string): void {
  try {
    closeSync(openSync(file, 'a'));
  } catch (error) {
    const errno = errnoOf(error) ?? 'failed';
    const state = unwritable[errno] ?? `the system answered with ${errno}`;
    throw new FiletrackerError('invalid-argument', `Cannot write the log "${file}": ${state}`, {
      cause: error,
    });
  }
}

async function openDestination(file: string | undefined): Promise<Destination> {
  if (file !== undefined) checkWritable(file);
  const destination = pino.destination({
    dest: file ?? 1,
    sync: false,
    minLength: 0,
    maxLength: waitingSizeMaxBytes,
  });
  if (file !== undefined) await once(destination, 'ready');
  return destination;
}

/** Lines for people, where people look: on a terminal. The library is loaded for them alone. */
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
 * Gathers lines before they go to pino's stream, whose work for each piece is four times that for making a line.
 *
 * Invariant: lines leave in the order in which they came, none later than the interval after it came.
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

  /** Stops, and gives what is gathered, unless it is to be made readable. */
  end(): string {
    clearInterval(this.#timer);
    if (this.#forPeople) this.flush();
    const lines = this.#lines;
    this.#lines = '';
    return lines;
  }
}

/** Whether all of it was written, as far as the other end takes it in a second. */
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
 * The log of a program: one structured line each, gathered and written without waiting. What is gathered is
 * lost if the process is killed; `close` writes it.
 */
export class Log {
  readonly logger: Logger;
  readonly #lines: LineGatherer;
  readonly #destination: Destination;
  readonly #file: string | undefined;
  /** Whether the last that was written came to nothing. */
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
    // A log that can't be written must not stop the server.
    destination.on('error', () => (this.#failing = true)).on('write', () => (this.#failing = false));
  }

  /** @throws FiletrackerError `invalid-argument` where the file can't be written. */
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

  /** Writes a line that the caller has made in the form of pino's. It ends with a line break. */
  writeLine(line: string): void {
    this.#lines.write(line);
  }

  /** Opens the file anew, after it was moved away. */
  reopen(): void {
    if (this.#file === undefined) return;
    this.#lines.flush();
    this.#destination.reopen();
  }

  /** Writes what is gathered. Idempotent. */
  close(): void {
    try {
      const last = this.#lines.end();
      // Where a write fails, as on a full disk, to flush is to try for ever, and the process would never end.
      if (this.#failing || !writeWhole(this.#file, last)) this.#destination.destroy();
      else this.#destination.flushSync();
    } catch {
      // The descriptor is not open yet, or closed: there is nowhere left to tell it.
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
