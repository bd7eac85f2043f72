import type { QueryResultRow } from 'pg';
import { throwIfAborted } from '../../core/concurrency.ts';
import { listBatchNames } from '../../core/limits.ts';
import type { ListOptions } from '../catalog.ts';
import { namePrefix, type Connections } from './connections.ts';

/** Rows of a page, which one statement gives; handed on in batches of `listBatchNames`. */
const pageRows = 4 * listBatchNames;

export interface RowList<Row> {
  /** What the rows are of; the name of the statement that is prepared for whole pages. */
  readonly name: string;
  /** Gives rows in the order of their keys, after $1; at most so many. */
  readonly text: (limit: number) => string;
  /** Values from $2 on. */
  readonly values: readonly unknown[];
  readonly keyOf: (row: Row) => unknown;
  /** Whether a row is shown; it is passed by otherwise. */
  readonly isShown?: ((row: Row) => boolean) | undefined;
}

/**
 * Gives rows in batches, page by page. A page is one statement, and so one snapshot; the next begins after the last row of
 * the one before.
 *
 * Invariant: no connection and no transaction is held while the receiver has the turn, so that slow ones keep neither
 * others waiting nor the database from cleaning up.
 */
export async function* listRows<Row extends QueryResultRow>(
  connections: Connections,
  list: RowList<Row>,
  after: unknown,
  { limit = Infinity, signal }: Pick<ListOptions, 'limit' | 'signal'>,
): AsyncGenerator<readonly Row[], void, void> {
  const { isShown } = list;
  let left = limit;
  for (let last = after; left > 0;) {
    throwIfAborted(signal, 'list the catalog');
    const rowsMax = isShown === undefined ? Math.min(left, pageRows) : pageRows;
    // The usual page is prepared under a name; others would be many.
    const name = rowsMax === pageRows ? `${namePrefix}${list.name}` : '';
    const statement = { name, text: list.text(rowsMax), operation: 'list' };
    const rows = await connections.runForList<Row>(statement, [last, ...list.values]);
    const shown = (isShown === undefined ? rows : rows.filter(isShown)).slice(0, left);
    left -= shown.length;
    yield* batches(shown, signal);
    const lastRow = rows.at(-1);
    if (lastRow === undefined || rows.length < rowsMax) return;
    last = list.keyOf(lastRow);
  }
}

function* batches<Row>(rows: readonly Row[], signal: AbortSignal | undefined): Iterable<readonly Row[]> {
  for (let start = 0; start < rows.length; start += listBatchNames) {
    throwIfAborted(signal, 'list the catalog');
    yield rows.slice(start, start + listBatchNames);
  }
}

/** The names of a directory lie between these two, both exclusive: "/a/" and "/a0", "0" being the letter after "/". */
export function boundsOf(directory: string, options: Pick<ListOptions, 'after'> = {}): [string, string] {
  const { after } = options;
  const afterIsLater = after !== undefined && Buffer.compare(Buffer.from(after), Buffer.from(directory)) > 0;
  return [afterIsLater ? after : directory, `${directory.slice(0, -1)}0`];
}
