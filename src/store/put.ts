import type { BlobStore } from '../blobs/blob-store.ts';
import type { BlobPin, BlobRecord, Catalog, PutContent, PutOutcome } from '../catalog/catalog.ts';
import { refusalOfPut } from '../catalog/decisions.ts';
import type { Digest } from '../core/digest.ts';
import type { Encoding } from '../core/blob.ts';
import { FiletrackerError, isFiletrackerError } from '../core/errors.ts';
import { ancestorsOf, type FileName } from '../core/file-name.ts';
import type { ReportProblem } from '../core/report.ts';
import { GatheredBytes } from '../streams/chunks.ts';
import { checkAnnounced, sizeMismatch } from './body-verifier.ts';
import type { EncodedContent } from './content-encoder.ts';
import type {
  Entry,
  FoundBeforePut,
  PutBody,
  PutIntent,
  PutOptions,
  PutResult,
  PutWithoutBody,
  PutWithoutBodyOptions,
  StoreLimits,
} from './file-store.ts';
import { MemoryBudget } from '../core/memory-budget.ts';
import { Upload, type UploadContext, type VerifiedContent } from './upload.ts';

/** The stored form of content, and where its bytes are. */
interface StoredForm {
  readonly encoding: Encoding;
  readonly storedSize: number;
  readonly content: PutContent;
}

/**
 * The path of a PUT. `put` is the whole of it; each step is a method below.
 *
 * Small bodies are collected in memory and verified before anything is encoded or written; if their stored form is
 * small too, it travels to the catalog inside the change. Large bodies are encoded and staged while they pass.
 * A body is read to its end and verified even if its bytes are not needed (a newer version is stored, or the same
 * content), so that the response does not depend on what else is stored. Only the writing is saved.
 *
 * Stored content is relied on only if its bytes are in the blob store, in their size: a loss shows to nothing else
 * before the next read. If they are not, the bytes of the body replace them.
 *
 * A put of an older version than the stored one is done once its body is verified: it took effect, which is
 * none, at the instant of the look-up.
 */
export class PutPath {
  readonly #catalog: Catalog;
  readonly #blobs: BlobStore;
  readonly #limits: StoreLimits;
  readonly #reportProblem: ReportProblem;
  readonly #onRelease: () => void;
  readonly #uploads: UploadContext;

  constructor(parts: {
    readonly catalog: Catalog;
    readonly blobs: BlobStore;
    readonly limits: StoreLimits;
    readonly reportProblem: ReportProblem;
    /** Called after a change that may have left a blob without a name. */
    readonly onRelease: () => void;
  }) {
    const { catalog, blobs, limits, reportProblem } = parts;
    this.#catalog = catalog;
    this.#blobs = blobs;
    this.#limits = limits;
    this.#reportProblem = reportProblem;
    this.#onRelease = parts.onRelease;
    this.#uploads = {
      blobs,
      limits,
      bounds: {
        sizeMaxBytes: limits.fileSizeMaxBytes,
        ratioMax: limits.decodingRatioMax,
        ratioFreeBytes: limits.decodingRatioFreeBytes,
      },
      inlineSizeMaxBytes: catalog.capabilities.inlineSizeMaxBytes,
      budget: new MemoryBudget(limits.bufferedBodiesTotalMaxBytes),
      reportProblem,
    };
  }

  /** Admit, receive, verify, find existing, encode, commit, respond. As `FileStore.put`. */
  async put(intent: PutIntent, body: PutBody, { signal, found }: PutOptions = {}): Promise<PutResult> {
    checkAnnounced(body.announcedSize, body.encoding, intent.claims, this.#limits.fileSizeMaxBytes);
    const receiving = Upload.receive({ intent, body, signal }, this.#uploads);
    const upload = receiving instanceof Promise ? await receiving : receiving;
    try {
      if (!(upload.received instanceof GatheredBytes)) await this.#findClaimed(upload, found);
      const content = await upload.verify();
      if (upload.newerVersion !== undefined) return await this.#superseded(intent.name, upload.newerVersion);
      const outcome =
        (await this.#commitExisting(upload, content)) ??
        (await this.#commitNew(upload, content, await upload.encode()));
      return await this.#respond(intent, outcome);
    } finally {
      await upload.release();
    }
  }

  /** Finds out, before a large body passes, whether its bytes are needed. */
  async #findClaimed(upload: Upload, found: FoundBeforePut | undefined): Promise<void> {
    const { name, version, precondition, claims } = upload.intent;
    const { current } = found ?? { current: (await this.#catalog.find(name))?.entry };
    if (current !== undefined && current.version > version && precondition === undefined) {
      upload.newerVersion = current.version;
      return;
    }
    const hold = claims.digest && (await this.#catalog.pin(claims.digest));
    if (hold === undefined) return;
    if (await this.#isThere(hold.blob)) upload.hold = hold;
    else await this.#release(hold);
  }

  /** Commits without the bytes of the body if the content is stored; else `undefined`. */
  async #commitExisting(upload: Upload, content: VerifiedContent): Promise<PutOutcome | undefined> {
    // A look-up would cost more than the bytes.
    if (upload.fitsChange) return undefined;
    const { intent, hold } = upload;
    const blob = hold?.blob ?? (await this.#findIntact(content.measure.digest));
    if (blob === undefined) return undefined;
    if (hold === undefined && !(await this.#isThere(blob))) {
      await this.#giveUpLost(blob.digest);
      return undefined;
    }
    const outcome = await this.#commit(intent, content, storedAs(blob));
    if (outcome.kind === 'content-missing' && hold === undefined) return undefined;
    upload.bytesAreUnused = true;
    return outcome;
  }

  async #findIntact(digest: Digest): Promise<BlobRecord | undefined> {
    const blob = await this.#catalog.findBlob(digest);
    return blob?.damaged === false ? blob : undefined;
  }

  /** A blob in the catalog itself is as intact as the catalog. */
  async #isThere({ location, storedSize }: BlobRecord): Promise<boolean> {
    return location.kind !== 'object' || (await this.#blobs.size(location.key)) === storedSize;
  }

  /**
   * Marks a blob whose bytes are lost, so that the next put of the same content replaces them. Checks again while it holds the
   * blob: one that was collected and stored again since the first check is not lost.
   */
  async #giveUpLost(digest: Digest): Promise<void> {
    const hold = await this.#catalog.pin(digest);
    if (hold === undefined) return;
    try {
      if (await this.#isThere(hold.blob)) return;
      const problem = `Cannot find the bytes of the blob "${digest}": an upload replaces them`;
      this.#reportProblem(problem, undefined);
      await this.#catalog.markDamaged(digest, true);
    } finally {
      await this.#release(hold);
    }
  }

  async #release(hold: BlobPin): Promise<void> {
    await hold.release().catch((error: unknown) => this.#reportProblem('Cannot release a blob', error));
  }

  /** Commits content with its bytes. */
  async #commitNew(
    upload: Upload,
    content: VerifiedContent,
    encoded: EncodedContent<Buffer> | undefined,
  ): Promise<PutOutcome> {
    if (encoded !== undefined && encoded.bytes.length <= this.#uploads.inlineSizeMaxBytes) {
      const { encoding, bytes } = encoded;
      const inline = { kind: 'inline', bytes } as const;
      return this.#commitBytes(upload, content, { encoding, storedSize: bytes.length, content: inline });
    }
    const sink = await upload.staged(encoded);
    const staged = await sink.seal();
    upload.bytesAreUnused = await sink.written();
    try {
      const { encoding, sizeBytes: storedSize } = sink;
      const outcome = await this.#commitBytes(upload, content, { encoding, storedSize, content: staged });
      upload.placed = outcome.kind === 'stored' && !outcome.deduplicated;
      return outcome;
    } catch (error) {
      if (!isFiletrackerError(error, 'not-found')) throw error;
      const text = `Cannot store "${upload.intent.name}": its upload was removed before it was stored; try again`;
      throw new FiletrackerError('unavailable', text, { cause: error });
    }
  }

  /** Commits twice if the first change relied on bytes that are lost: the second change stores those of the body. */
  async #commitBytes({ intent }: Upload, content: VerifiedContent, form: StoredForm): Promise<PutOutcome> {
    const outcome = await this.#commit(intent, content, form);
    if (outcome.kind !== 'stored' || outcome.object === undefined) return outcome;
    const { key, storedSize } = outcome.object;
    if ((await this.#blobs.size(key)) === storedSize) return outcome;
    await this.#giveUpLost(content.measure.digest);
    return this.#commit(intent, content, form);
  }

  /** Makes the change, which nothing can abort any more. */
  #commit(intent: PutIntent, { measure, bodyBytes }: VerifiedContent, form: StoredForm): Promise<PutOutcome> {
    const { name, version, precondition, firstSentMs } = intent;
    const { digest, sizeBytes: logicalSize } = measure;
    const bounded = bodyBytes !== undefined && Number.isFinite(this.#limits.storedBytesMax);
    return this.#catalog.put({
      name,
      version,
      digest,
      logicalSize,
      storedSize: form.storedSize,
      encoding: form.encoding,
      content: form.content,
      ...(bounded && { offeredSize: bodyBytes }),
      ...(precondition !== undefined && { precondition }),
      ...(firstSentMs !== undefined && { firstSentMs }),
    });
  }

  async #respond({ name }: PutIntent, outcome: PutOutcome): Promise<PutResult> {
    switch (outcome.kind) {
      case 'stored':
        this.#onRelease();
        return { version: outcome.version, stored: true, deduplicated: outcome.deduplicated };
      case 'superseded':
        return await this.#superseded(name, outcome.version);
      case 'precondition-failed':
        throw preconditionFailed(name);
      case 'name-conflict':
        throw nameConflict(name, outcome.other);
      case 'limit-reached':
        throw quotaExceeded(name, outcome.limit);
      case 'content-missing':
        // Its bytes came with the change, or were held.
        throw new FiletrackerError(
          'unavailable',
          `Cannot store "${name}": its content was just found damaged; try again`,
        );
    }
  }

  /** Looks the name up only now, because this is rare: a removal or put since the decision shows in the result. */
  async #superseded(name: FileName, version: number): Promise<PutResult> {
    const removed = (await this.#catalog.find(name)) === undefined;
    return { version, stored: false, deduplicated: false, ...(removed && { removed }) };
  }

  /** As `FileStore.putWithoutBody`. */
  async putWithoutBody(
    intent: PutIntent,
    { mayLink, announcedSize = 0 }: PutWithoutBodyOptions,
  ): Promise<PutWithoutBody> {
    const { claims, name } = intent;
    checkAnnounced(undefined, 'identity', claims, this.#limits.fileSizeMaxBytes);
    const current = (await this.#catalog.find(name))?.entry;
    const refusal = refusalOfPut(current, intent);
    if (refusal !== undefined) return { kind: 'settled', result: await this.#respond(intent, refusal) };
    if (current === undefined) await this.#checkTree(name);
    const outcome = mayLink ? await this.#link(intent) : undefined;
    if (outcome !== undefined) return { kind: 'settled', result: await this.#respond(intent, outcome) };
    await this.#checkFull(name, current, announcedSize);
    return { kind: 'body-needed', found: { current } };
  }

  /** Names the claimed content if it is stored. */
  async #link(intent: PutIntent): Promise<PutOutcome | undefined> {
    const { digest, logicalSize } = intent.claims;
    const blob = digest && (await this.#findIntact(digest));
    if (blob === undefined || !(await this.#isThere(blob))) return undefined;
    if (logicalSize !== undefined && logicalSize !== blob.logicalSize) {
      throw sizeMismatch(logicalSize, blob.logicalSize);
    }
    const measure = { digest: blob.digest, sizeBytes: blob.logicalSize };
    const outcome = await this.#commit(intent, { measure, bodyBytes: undefined }, storedAs(blob));
    return outcome.kind === 'content-missing' ? undefined : outcome;
  }

  /** The catalog decides in the end; this spares the client sending a large body. */
  async #checkTree(name: FileName): Promise<void> {
    for (const ancestor of ancestorsOf(name)) {
      if ((await this.#catalog.find(ancestor)) !== undefined) throw nameConflict(name, ancestor);
    }
    if ((await this.#catalog.kindOfDirectory(`${name}/`)) === 'directory')
      throw nameConflict(name, undefined);
  }

  /** The catalog decides in the end here too; only its one writer knows the quotas of directories. */
  async #checkFull(name: FileName, current: Entry | undefined, announcedBytes: number): Promise<void> {
    const { storedBytesMax, entriesMax } = this.#limits;
    if (storedBytesMax === Infinity && entriesMax === Infinity) return;
    const { storedBytes, entries } = await this.#catalog.stats();
    if (storedBytes + announcedBytes > storedBytesMax) {
      throw quotaExceeded(name, `the store is limited to ${storedBytesMax} bytes`);
    }
    if (entries < entriesMax || current !== undefined) return;
    throw quotaExceeded(name, `the store is limited to ${entriesMax} files`);
  }
}

function storedAs({ encoding, storedSize }: BlobRecord): StoredForm {
  return { encoding, storedSize, content: { kind: 'stored' } };
}

export function preconditionFailed(name: FileName): FiletrackerError {
  const text = `Cannot change "${name}": a condition of the request is not met`;
  return new FiletrackerError('precondition-failed', text, { details: { name } });
}

function quotaExceeded(name: FileName, limit: string): FiletrackerError {
  return new FiletrackerError('quota-exceeded', `Cannot store "${name}": ${limit}`);
}

/** Does not name the other file: the client may lack the right to read it. */
function nameConflict(name: FileName, other: FileName | undefined): FiletrackerError {
  const state =
    other === undefined || other.startsWith(`${name}/`)
      ? 'there are files below it, as below a directory'
      : 'one of the directories above it is a file';
  return new FiletrackerError('name-conflict', `Cannot store "${name}": ${state}`, { details: { name } });
}
