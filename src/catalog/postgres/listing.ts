import type { QueryResultRow } from 'pg';
import { throwIfAborted } from '../../core/concurrency.ts';
import type { FileName } from '../../core/file-name.ts';
import { listBatchNames } from '../../core/limits.ts';
import type { ListOptions } from '../catalog.ts';
import { namePrefix, type Connections } from './connections.ts';

/** Rows of a page, which one statement returns; yielded in batches of `listBatchNames`. */
const pageRows = 4 * listBatchNames;

export interface RowList<Row> {
  /** Names the statement that is prepared for whole pages. */
  readonly name: string;
  /** Selects rows in the order of their keys, after $1; at most `limit`. */
  readonly text: (limit: number) => string;
  /** Values from $2 on. */
  readonly values: readonly unknown[];
  readonly keyOf: (row: Row) => unknown;
  /** Whether a row is yielded; by default all are. */
  readonly isShown?: ((row: Row) => boolean) | undefined;
}

/**
 * Yields rows in batches, page by page. A page is one statement, and so one snapshot; the next begins after the last row
 * of the one before.
 *
 * Invariant: no connection and no transaction is held while the consumer runs, so that slow consumers neither block
 * others nor keep the database from cleaning up.
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
    // Only whole pages are prepared under a name: pages of other sizes would be many.
    const name = rowsMax === pageRows ? `${namePrefix}${list.name}` : '';
    const statement = { name, text: list.text(rowsMax), operation: 'list' };
    const rows = await connections.runForList<Row>(statement, [last, ...list.values]);
    const shown = (isShown === undefined ? rows : rows.filter(isShown)).slice(0, left);
    left -= shown.length;
    for (let start = 0; start < shown.length; start += listBatchNames) {
      throwIfAborted(signal, 'list the catalog');
      yield shown.slice(start, start + listBatchNames);
    }
    const lastRow = rows.at(-1);
    if (lastRow === undefined || rows.length < rowsMax) return;
    last = list.keyOf(lastRow);
  }
}

/**
 * The exclusive bounds of the names below a directory, after a name if one is passed. For "/a/" they are "/a/" and "/a0":
 * "0" follows "/" in ASCII.
 */
export function boundsOf(directory: string, after?: FileName): [string, string] {
  const afterIsLater = after !== undefined && Buffer.compare(Buffer.from(after), Buffer.from(directory)) > 0;
  return [afterIsLater ? after : directory, `${directory.slice(0, -1)}0`];
}
