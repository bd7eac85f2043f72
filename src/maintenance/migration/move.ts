import { Readable } from 'node:stream';
import { messageOf } from '../../core/errors.ts';
import type { FileName } from '../../core/file-name.ts';
import type { Entry, FileStore } from '../../store/file-store.ts';
import { isBadContent } from '../../store/body-verifier.ts';
import { openFile } from '../../store/get.ts';
import { FirstItems, Steps, type ProgressListener, type StepReport } from '../progress.ts';
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
  /** Stored bytes of the copied files, except those that the target had already. */
  readonly copiedBytes: number;
  /** Entries of the target that the source does not have, or has in another version; they stay. */
  readonly others: number;
  /** Files that could not be copied because their blob is damaged in the source. */
  readonly damaged: readonly { readonly name: string; readonly reason: string }[];
  /** Names whose entry in the target differs from the source; empty if the move is complete. */
  readonly missing: readonly string[];
  readonly steps: readonly StepReport[];
}

const defaultJobs = 16;

/**
 * Copies every file of one store to another, on any back ends. Each blob is verified while it is stored, as an upload is.
 * It can be interrupted and run again: files that the target has in their version and content are not copied again. Newer
 * versions in the target stay. At the end the lists of both stores are compared.
 */
export async function moveStore(
  source: FileStore,
  target: FileStore,
  options: MoveOptions = {},
): Promise<MoveReport> {
  const { jobs = defaultJobs, signal, listener } = options;
  const steps = new Steps(listener);
  const damaged = new FirstItems<{ name: string; reason: string }>();
  const copied = { files: 0, bytes: 0 };
  const total = (await source.stats()).entries;
  await steps.run(
    'copy',
    'Copying files',
    async (advance) => {
      let seen = 0;
      await sideBySide(pairs(source, target, signal), jobs, async ({ wanted, there }) => {
        signal?.throwIfAborted();
        if (wanted === undefined) return;
        if (!covers(there, wanted)) {
          const { name, version, digest, logicalSize } = wanted;
          const intent = { name, version, claims: { digest, logicalSize } };
          const settled = (await target.putWithoutBody(intent, { mayLink: true })).kind === 'settled';
          const bytes = settled
            ? 0
            : await copyBytes(name, source, target, signal).catch((error: unknown) => {
                if (!isBadContent(error)) throw error;
                damaged.add({ name, reason: messageOf(error) });
                return undefined;
              });
          if (bytes !== undefined) copied.files += 1;
          copied.bytes += bytes ?? 0;
        }
        advance((seen += 1), total);
      });
      return seen;
    },
    (files) => ({ files, copied: copied.files, bytes: copied.bytes }),
  );
  const compared = await steps.run(
    'compare',
    'Comparing the lists',
    async (advance) => {
      const missing = new FirstItems<string>();
      let entries = 0;
      let others = 0;
      for await (const { wanted, there } of pairs(source, target, signal)) {
        if (there !== undefined && !same(there, wanted)) others += 1;
        if (wanted === undefined) continue;
        advance((entries += 1), total);
        if (!covers(there, wanted)) missing.add(wanted.name);
      }
      return { entries, others, missing: missing.items };
    },
    ({ entries, missing }) => ({ files: entries, missing: missing.length }),
  );
  const sums = { copied: copied.files, copiedBytes: copied.bytes };
  return { ...compared, ...sums, damaged: damaged.items, steps: steps.reports };
}

/** @returns the stored size of the file; `undefined` if the source has removed it since it was listed. */
async function copyBytes(
  name: FileName,
  source: FileStore,
  target: FileStore,
  signal: AbortSignal | undefined,
): Promise<number | undefined> {
  const file = await openFile(source, name, { form: 'stored', signal });
  if (file === undefined) return undefined;
  const { body, encoding, size, entry } = file;
  const { digest, logicalSize, version } = entry;
  try {
    await target.put(
      { name, version, claims: { digest, logicalSize } },
      { source: body, encoding, announcedSize: size },
      signal && { signal },
    );
  } finally {
    if (body instanceof Readable) body.destroy();
  }
  return size;
}

function same(there: Entry, wanted: Entry | undefined): boolean {
  return there.version === wanted?.version && there.digest === wanted.digest;
}

/** Whether the target has the wanted entry, or a newer one of the same name. */
function covers(there: Entry | undefined, wanted: Entry): boolean {
  return there !== undefined && (there.version > wanted.version || same(there, wanted));
}

interface Pair {
  readonly wanted: Entry | undefined;
  readonly there: Entry | undefined;
}

/** The entries of both stores by name. Both lists are in byte order, so one pass over them is enough. */
async function* pairs(
  source: FileStore,
  target: FileStore,
  signal: AbortSignal | undefined,
): AsyncGenerator<Pair, void, void> {
  const options = signal && { signal };
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
