import { Readable } from 'node:stream';
import { FiletrackerError } from '../../core/errors.ts';
import { listJsonType, textType } from '../../protocol/endpoints.ts';
import { formatEntryLines, formatNameLines } from '../../protocol/list-format.ts';
import { namesType } from '../../protocol/quality.ts';
import { parseListQuery } from '../../protocol/query.ts';
import type { ListOptions } from '../../store/file-store.ts';
import type { Exchange } from '../exchange.ts';
import type { ServerContext } from './context.ts';

const jsonTypes = [listJsonType, 'application/ndjson'];

/**
 * GET and HEAD /list/{directory}. Holds one batch of names in memory: it takes the next one from the catalog when the
 * connection has taken the last. The response begins when the first batch is there, so that a catalog that fails gets a
 * status of its own and not an empty list.
 */
export async function listFiles(
  exchange: Exchange,
  directory: string,
  query: string,
  context: ServerContext,
): Promise<void> {
  const { request, principal, sender } = exchange;
  const parts = principal?.listable(directory) ?? [];
  if (principal === undefined || parts.length === 0) exchange.require('list', directory);
  const options = parseListQuery(query, directory);
  // A client that may list only parts of a directory does not learn whether the directory exists.
  const whole = parts.length === 1 && parts[0] === directory;
  if (whole) await requireDirectory(directory, context);
  const asJson = namesType(request.headers.accept, jsonTypes);
  const headers = ['Content-Type', asJson ? listJsonType : textType, 'Vary', 'Accept'];
  if (request.method === 'HEAD' || principal === undefined) {
    exchange.send(200, headers);
    return;
  }
  const { store, lists } = context;
  const mayRead = principal.unrestricted ? undefined : (name: string) => principal.may('read', name);
  const lines = asJson
    ? linesOf(
        inParts(parts, options, (part, wanted) => store.listEntries(part, wanted)),
        mayRead && (({ name }) => mayRead(name)),
        formatEntryLines,
      )
    : linesOf(
        inParts(parts, options, (part, wanted) => store.listNames(part, wanted)),
        mayRead,
        (names) => formatNameLines(names, directory),
      );
  lists.take(`list "${directory}"`, sender);
  try {
    const first = await lines.next();
    await exchange.stream(200, headers, Readable.from(resumed(first, lines), { highWaterMark: 1 }));
  } finally {
    try {
      // If the response never began, nothing else ends the list in the catalog.
      await lines.return(undefined);
    } finally {
      lists.release(sender);
    }
  }
}

/** @throws FiletrackerError `not-a-directory`; the root always is one. */
async function requireDirectory(directory: string, context: ServerContext): Promise<void> {
  const kind = directory === '/' ? 'directory' : await context.store.kindOfDirectory(directory);
  if (kind === 'directory') return;
  const state = kind === 'file' ? 'it is a file' : 'there is no such directory';
  throw new FiletrackerError('not-a-directory', `Cannot list "${directory}": ${state}`);
}

/**
 * The list of a directory for a client that may list only parts of it: those parts one after the other. That is the order
 * of the names, because the parts are sorted and none contains another. The limit is for all.
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

/** One piece of text for each batch of the catalog, which keeps the cost per name below a microsecond. */
async function* linesOf<Item>(
  batches: AsyncIterable<readonly Item[]>,
  isShown: ((item: Item) => boolean) | undefined,
  format: (items: readonly Item[]) => string,
): AsyncGenerator<string> {
  for await (const batch of batches) {
    const items = isShown === undefined ? batch : batch.filter((item) => isShown(item));
    if (items.length > 0) yield format(items);
  }
}

/** `first` has been taken from `rest` already. */
async function* resumed(first: IteratorResult<string>, rest: AsyncIterable<string>): AsyncGenerator<string> {
  if (first.done === true) return;
  yield first.value;
  yield* rest;
}
