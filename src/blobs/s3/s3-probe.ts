import { randomBytes } from 'node:crypto';
import { FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import type { S3Connection } from './s3-connection.ts';

/** Objects of probes lie here, each for as long as its probe takes; a crash may leave one behind. */
export const probeFolder = 'probe/';
/** How long what was found is taken for what is, unless something fails meanwhile. */
const successLifetimeMs = 5_000;

/**
 * Finds out whether the bucket can be written to and read from, by an object that is put, read and removed.
 *
 * Invariant: a success is believed for `successLifetimeMs` at the most, and only as long as nothing else fails; a
 * failure is never believed twice.
 */
export class S3Probe {
  readonly #connection: S3Connection;
  readonly #key = `${probeFolder}${randomBytes(16).toString('hex')}`;
  #running: Promise<void> | undefined;
  #soundUntilMs = -Infinity;
  #failuresBefore = 0;

  constructor(connection: S3Connection) {
    this.#connection = connection;
  }

  /** @throws FiletrackerError `unavailable`, `no-space`. */
  async run(): Promise<void> {
    const { failures } = this.#connection;
    if (performance.now() < this.#soundUntilMs && failures === this.#failuresBefore) return;
    this.#running ??= this.#tryObject().finally(() => (this.#running = undefined));
    await this.#running;
    this.#failuresBefore = failures;
    this.#soundUntilMs = performance.now() + successLifetimeMs;
  }

  async #tryObject(): Promise<void> {
    const { library, client } = this.#connection;
    const at = this.#connection.at(this.#key);
    const body = Buffer.from('probe');
    const written = new library.PutObjectCommand({ ...at, Body: body, ContentLength: body.length });
    try {
      await this.#connection.run('write to the object store and read from it', async (abortSignal) => {
        await client.send(written, { abortSignal });
        const answer = await client.send(new library.GetObjectCommand(at), { abortSignal });
        const read = await answer.Body?.transformToString();
        await client.send(new library.DeleteObjectCommand(at), { abortSignal });
        if (read === body.toString()) return;
        throw new FiletrackerError(
          'unavailable',
          'Cannot use the object store: it does not give what it took',
        );
      });
    } catch (error) {
      if (!isFiletrackerError(error, 'not-found')) throw error;
      const text = 'Cannot use the object store: what was just written is not there';
      throw new FiletrackerError('unavailable', text, { cause: error });
    }
  }
}
