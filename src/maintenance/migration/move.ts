import { Readable } from 'node:stream';
import { messageOf } from '../../core/errors.ts';
import { reportItemsMax } from '../../core/limits.ts';
import type { Entry, FileStore } from '../../store/file-store.ts';
import { openFile } from '../../store/get.ts';
import { isBadContent } from '../../store/body-verifier.ts';
import { Steps, type ProgressListener, type StepReport } from '../progress.ts';
import { flattened, sideBySide } from '../../streams/side-by-side.ts';

export interface MoveOptions {
  /** Files copied side by side. */
  readonly jobs?: number | undefined;
  readonly listener?: ProgressListener | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface MoveReport {
  /** Entries of the source. */
  readonly entries: number;
  readonly copied: number;
  /** Bytes of the copied files in their stored form, those that the target had already left out. */
  readonly copiedBytes: number;
  /** Entries of the target that the source does not have in this version, or not at all; they stay. */
  readonly others: number;
  /** Files that could not be copied, with the reason: their content is damaged in the source. */
  readonly damaged: readonly { readonly name: string; readonly reason: string }[];
  /** Names that are not in the target as they are in the source after all; none where the move is complete. */
  readonly missing: readonly string[];
  readonly steps: readonly StepReport[];
}

const defaultJobs = 16;

/**
 * Brings every file of one store to another, whatever engines they are on. Each content is verified while it is
 * taken in, as an upload is. Can be interrupted and run again: what is there in its version and content is not
 * copied again. Newer versions in the target stay. At the end both lists are held against each other.
 */
export async function moveStore(
  source: FileStore,
  target: FileStore,
  options: MoveOptions = {},
): Promise<MoveReport> {
  const { jobs = defaultJobs, signal, listener } = options;
  const steps = new Steps(listener);
  const damaged: { name: string; reason: string }[] = [];
  const copy = new Copy(source, target, damaged);
  const total = (await source.stats()).entries;
  await steps.run('copy', 'Copying files', async (advance) => {
    let seen = 0;
    const wanted = pairs(source, target, signal);
    await sideBySide(wanted, jobs, async ({ wanted: entry, there }) => {
      signal?.throwIfAborted();
      if (entry !== undefined && !covers(there, entry)) await copy.file(entry, signal);
      if (entry !== undefined) advance((seen += 1), total);
    });
    return { counts: { files: seen, copied: copy.files, bytes: copy.bytes }, result: undefined };
  });
  const compared = await steps.run('compare', 'Comparing the lists', async (advance) => {
    const missing: string[] = [];
    let entries = 0;
    let others = 0;
    for await (const { wanted: entry, there } of pairs(source, target, signal)) {
      if (there !== undefined && !same(there, entry)) others += 1;
      if (entry === undefined) continue;
      advance((entries += 1), total);
      if (!covers(there, entry) && missing.length < reportItemsMax) missing.push(entry.name);
    }
    return { counts: { files: entries, missing: missing.length }, result: { entries, others, missing } };
  });
  return { ...compared, copied: copy.files, copiedBytes: copy.bytes, damaged, steps: steps.reports };
}

class Copy {
  files = 0;
  bytes = 0;
  readonly #source: FileStore;
  readonly #target: FileStore;
  readonly #damaged: { name: string; reason: string }[];

  constructor(source: FileStore, target: FileStore, damaged: { name: string; reason: string }[]) {
    this.#source = source;
    this.#target = target;
    this.#damaged = damaged;
  }

  async file(entry: Entry, signal: AbortSignal | undefined): Promise<void> {
    const { name, version, digest, logicalSize } = entry;
    const intent = { name, version, claims: { digest, logicalSize } };
    const outcome = await this.#target.putWithoutBody(intent, { mayLink: true });
    if (outcome.kind === 'settled') {
      this.files += 1;
      return;
    }
    try {
      await this.#bytesOf(intent, signal);
    } catch (error) {
      if (!isBadContent(error)) throw error;
      if (this.#damaged.length < reportItemsMax) this.#damaged.push({ name, reason: messageOf(error) });
    }
  }

  async #bytesOf(intent: Parameters<FileStore['put']>[0], signal: AbortSignal | undefined): Promise<void> {
    const file = await openFile(this.#source, intent.name, { form: 'stored', signal });
    // Removed from the source since it was listed.
    if (file === undefined) return;
    const { body, encoding, size, entry } = file;
    const { digest, logicalSize, version } = entry;
    try {
      await this.#target.put(
        { ...intent, version, claims: { digest, logicalSize } },
        { source: body, encoding, announcedSize: size },
        signal === undefined ? {} : { signal },
      );
    } finally {
      if (body instanceof Readable) body.destroy();
    }
    this.files += 1;
    this.bytes += size;
  }
}

function same(there: Entry, wanted: Entry | undefined): boolean {
  return there.version === wanted?.version && there.digest === wanted.digest;
}

/** Whether the target holds what is wanted, or something newer under the name. */
function covers(there: Entry | undefined, wanted: Entry): boolean {
  return there !== undefined && (there.version > wanted.version || same(there, wanted));
}

interface Pair {
  readonly wanted: Entry | undefined;
  readonly there: Entry | undefined;
}

/** The entries of both stores by name: both lists are in byte order, so one walk along them is enough. */
async function* pairs(
  source: FileStore,
  target: FileStore,
  signal: AbortSignal | undefined,
): AsyncGenerator<Pair, void, void> {
  const options = signal === undefined ? {} : { signal };
  const wanted = flattened(source.listEntries('/', options));
  const there = flattened(target.listEntries('/', options));
  try {
    let one = await wanted.next();
    let other = await there.next();
    while (one.done !== true || other.done !== true) {
      const order =
        one.done === true ? 1 : other.done === true ? -1 : inBytes(one.value.name, other.value.name);
      yield {
        wanted: order <= 0 && one.done !== true ? one.value : undefined,
        there: order >= 0 && other.done !== true ? other.value : undefined,
      };
      if (order <= 0) one = await wanted.next();
      if (order >= 0) other = await there.next();
    }
  } finally {
    await Promise.all([wanted.return(), there.return()]);
  }
}

function inBytes(one: string, other: string): number {
  return Buffer.compare(Buffer.from(one), Buffer.from(other));
}
