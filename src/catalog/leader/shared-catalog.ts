import type { Digest } from '../../core/digest.ts';
import type {
  BlobPin,
  BlobRecord,
  Catalog,
  PlacedBlob,
  PutChange,
  PutOutcome,
  RemoveChange,
  RemoveOutcome,
} from '../catalog.ts';
import { LmdbReader } from '../lmdb/index/lmdb-reader.ts';
import { ConnectionLost, type ChangeClient } from './change-client.ts';
import { Leadership, type LeadershipOptions } from './leadership.ts';

/**
 * The embedded catalog for several processes: each reads LMDB and the journal itself; one, the leader, makes the changes
 * of all.
 *
 * A change whose response was lost with its leader is repeated at the next one, with the state of the name before the
 * first request (`stoodBefore`), so that it is not made a second time over what others have changed since.
 */
export class SharedCatalog extends LmdbReader implements Catalog {
  readonly #leadership: Leadership;
  #closed: Promise<void> | undefined;

  private constructor(leadership: Leadership, { folders, clock }: LeadershipOptions) {
    super(leadership.index, folders, clock);
    this.#leadership = leadership;
  }

  /** @throws as `Leadership.join`. */
  static async open(options: LeadershipOptions): Promise<SharedCatalog> {
    return new SharedCatalog(await Leadership.join(options), options);
  }

  get leads(): boolean {
    return this.#leadership.leading !== undefined;
  }

  put(change: PutChange): Promise<PutOutcome> {
    const { leading } = this.#leadership;
    if (leading !== undefined) return leading.put(change);
    const stoodBefore = this.standing(change.name);
    const sent = (again: boolean): PutChange => (again ? { ...change, stoodBefore } : change);
    return this.#leadership.change(
      (catalog, again) => catalog.put(sent(again)),
      (client, again) => client.put(sent(again)),
    );
  }

  remove(change: RemoveChange): Promise<RemoveOutcome> {
    const { leading } = this.#leadership;
    if (leading !== undefined) return leading.remove(change);
    const stoodBefore = this.standing(change.name);
    const sent = (again: boolean): RemoveChange => (again ? { ...change, stoodBefore } : change);
    return this.#leadership.change(
      (catalog, again) => catalog.remove(sent(again)),
      (client, again) => client.remove(sent(again)),
    );
  }

  collect(digests: readonly Digest[], beforeMs: number): Promise<readonly BlobRecord[]> {
    return this.#leadership.change(
      (catalog) => catalog.collect(digests, beforeMs),
      (client) => client.request({ method: 'collect', digests, beforeMs }),
    );
  }

  pin(digest: Digest): Promise<BlobPin | undefined> {
    return this.#leadership.change(
      (catalog) => catalog.pin(digest),
      (client) => this.#pinAt(client, digest),
    );
  }

  async #pinAt(client: ChangeClient, digest: Digest): Promise<BlobPin | undefined> {
    if (!(await client.request({ method: 'pin', digest }))) return undefined;
    let held = true;
    const release = async (): Promise<void> => {
      if (!held) return;
      held = false;
      // A pin ends with its connection.
      await client.request({ method: 'release', digest }).catch((error: unknown) => {
        if (!(error instanceof ConnectionLost)) throw error;
      });
    };
    const blob = await this.findBlob(digest);
    if (blob !== undefined) return { blob, release };
    await release();
    return undefined;
  }

  async markDamaged(digest: Digest, damaged: boolean): Promise<void> {
    await this.#leadership.change<unknown>(
      (catalog) => catalog.markDamaged(digest, damaged),
      (client) => client.request({ method: 'mark', digest, damaged }),
    );
  }

  async addBlobs(blobs: readonly PlacedBlob[]): Promise<void> {
    await this.#leadership.change<unknown>(
      (catalog) => catalog.addBlobs(blobs),
      (client) => client.request({ method: 'add', blobs }),
    );
  }

  async probe(): Promise<void> {
    await this.#leadership.change<unknown>(
      (catalog) => catalog.probe(),
      (client) => client.request({ method: 'probe' }),
    );
  }

  override close(): Promise<void> {
    this.#closed ??= this.#finish();
    return this.#closed;
  }

  async #finish(): Promise<void> {
    await this.#leadership.end();
    await super.close();
    await this.#leadership.close();
  }
}
