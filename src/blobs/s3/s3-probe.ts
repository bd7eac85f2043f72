import { randomBytes } from 'node:crypto';
import { FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import type { S3Connection } from './s3-connection.ts';

/** Folder of the objects of probes. Each exists as long as its probe runs; a crash may leave one behind. */
export const probeFolder = 'probe/';
/** How long a success is valid unless an operation fails. */
const successLifetimeMs = 5_000;

/**
 * Finds out whether the bucket can be written to and read from, by an object that is put, read and removed.
 *
 * Invariant: a success is valid for `successLifetimeMs` at most, and only until another operation fails. A failure is
 * never reused.
 */
export class S3Probe {
  readonly #connection: S3Connection;
  readonly #key = `${probeFolder}${randomBytes(16).toString('hex')}`;
  #running: Promise<void> | undefined;
  #validUntilMs = -Infinity;
  #failuresBefore = 0;

  constructor(connection: S3Connection) {
    this.#connection = connection;
  }

  /** @throws FiletrackerError `unavailable`, `no-space`. */
  async run(): Promise<void> {
    const { failures } = this.#connection;
    if (performance.now() < this.#validUntilMs && failures === this.#failuresBefore) return;
    this.#running ??= this.#tryObject().finally(() => (this.#running = undefined));
    await this.#running;
    this.#failuresBefore = failures;
    this.#validUntilMs = performance.now() + successLifetimeMs;
  }

  async #tryObject(): Promise<void> {
    const { library, client } = this.#connection;
    const at = this.#connection.at(this.#key);
    const body = Buffer.from('probe');
    const written = new library.PutObjectCommand({ ...at, Body: body, ContentLength: body.length });
    try {
      await this.#connection.run('write to the object store and read from it', async (abortSignal) => {
        await client.send(written, { abortSignal });
        const response = await client.send(new library.GetObjectCommand(at), { abortSignal });
        const read = await response.Body?.transformToString();
        await client.send(new library.DeleteObjectCommand(at), { abortSignal });
        if (read === body.toString()) return;
        throw new FiletrackerError(
          'unavailable',
          'Cannot use the object store: it does not return the bytes that were written',
        );
      });
    } catch (error) {
      if (!isFiletrackerError(error, 'not-found')) throw error;
      const text = 'Cannot use the object store: the object that was just written is missing';
      throw new FiletrackerError('unavailable', text, { cause: error });
    }
  }
}
