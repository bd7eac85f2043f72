import { Readable } from 'node:stream';
import { FiletrackerError } from '../../core/errors.ts';
import type { FileName } from '../../core/file-name.ts';
import { listJsonType, textType } from '../../protocol/endpoints.ts';
import { formatEntryLines, formatNameLines } from '../../protocol/list-format.ts';
import { namesType } from '../../protocol/quality.ts';
import { parseListQuery } from '../../protocol/query.ts';
import type { Entry, ListOptions } from '../../store/file-store.ts';
import type { Principal } from '../../access/access.ts';
import type { Exchange } from '../exchange.ts';
import type { ServerContext } from './context.ts';

const jsonTypes = [listJsonType, 'application/ndjson'];

/**
 * What a list of `directory` shows to someone who may list only parts of it: those parts one after the
 * other, which is the order of the names as the parts come sorted and none lies in another. The limit is for all.
 */
async function* inParts<Item>(
  parts: readonly string[],
  options: ListOptions,
  list: (part: string, options: ListOptions) => AsyncIterable<readonly Item[]>,
): AsyncGenerator<readonly Item[]> {
  let left = options.limit ?? Number.POSITIVE_INFINITY;
  for (const part of parts) {
    if (left <= 0) return;
    const limit = Number.isFinite(left) ? left : undefined;
    for await (const batch of list(part, { ...options, limit })) {
      left -= batch.length;
      yield batch;
    }
  }
}

/** One piece of text for each batch that the catalog gives, so that cost per name stays below a microsecond. */
async function* nameLines(
  batches: AsyncIterable<readonly FileName[]>,
  directory: string,
  principal: Principal,
): AsyncGenerator<string> {
  for await (const batch of batches) {
    const names = principal.unrestricted ? batch : batch.filter((name) => principal.may('read', name));
    if (names.length > 0) yield formatNameLines(names, directory);
  }
}

async function* entryLines(
  batches: AsyncIterable<readonly Entry[]>,
  principal: Principal,
): AsyncGenerator<string> {
  for await (const batch of batches) {
    const entries = principal.unrestricted ? batch : batch.filter(({ name }) => principal.may('read', name));
    if (entries.length > 0) yield formatEntryLines(entries);
  }
}

/** `first` has been taken from `rest` already. */
async function* goingOn(first: IteratorResult<string>, rest: AsyncIterable<string>): AsyncGenerator<string> {
  if (first.done === true) return;
  yield first.value;
  yield* rest;
}

/** @throws FiletrackerError `not-a-directory`; the root always is one. */
async function requireDirectory(directory: string, context: ServerContext): Promise<void> {
  const kind = directory === '/' ? 'directory' : await context.store.kindOfDirectory(directory);
  if (kind === 'directory') return;
  const state = kind === 'file' ? 'it is a file' : 'there is no such directory';
  throw new FiletrackerError('not-a-directory', `Cannot list "${directory}": ${state}`);
}

/**
 * GET and HEAD /list/{directory}. One batch of names is held in memory at a time: the next one is taken from
 * the catalog when the connection has taken the last. The answer begins when the first one is there, so that a
 * catalog that fails gets a status of its own and not an empty list.
 */
export async function listFiles(
  exchange: Exchange,
  directory: string,
  query: string,
  context: ServerContext,
): Promise<void> {
  const { request, principal } = exchange;
  const parts = principal?.listable(directory) ?? [];
  if (principal === undefined || parts.length === 0) exchange.require('list', directory);
  const options: ListOptions = { ...parseListQuery(query, directory), sender: exchange.sender };
  const whole = parts.length === 1 && parts[0] === directory;
  // Whether a directory above what may be listed is there is not told: it is shown as far as it may be.
  if (whole) await requireDirectory(directory, context);
  const asJson = namesType(request.headers.accept, jsonTypes);
  const headers = ['Content-Type', asJson ? listJsonType : textType, 'Vary', 'Accept'];
  if (request.method === 'HEAD' || principal === undefined) {
    exchange.send(200, headers);
    return;
  }
  const { store } = context;
  const lines = asJson
    ? entryLines(
        inParts(parts, options, (part, wanted) => store.listEntries(part, wanted)),
        principal,
      )
    : nameLines(
        inParts(parts, options, (part, wanted) => store.listNames(part, wanted)),
        directory,
        principal,
      );
  try {
    const first = await lines.next();
    await exchange.stream(200, headers, Readable.from(goingOn(first, lines), { highWaterMark: 1 }));
  } finally {
    // Where the answer was never begun, nothing else lets go of what the catalog holds for the list.
    await lines.return(undefined);
  }
}
