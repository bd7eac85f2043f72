import type { QueryResultRow } from 'pg';
import { throwIfAborted } from '../../core/abort.ts';
import { digestOf } from '../../core/digest.ts';
import { listBatchNames } from '../../core/limits.ts';
import type { ListOptions } from '../catalog.ts';
import type { Connections } from './connections.ts';

/** Rows taken from the database at a time; handed on in batches of `listBatchNames`. */
const fetchRows = 4 * listBatchNames;

interface RowQuery {
  /** Without a LIMIT. */
  readonly text: string;
  readonly values: readonly unknown[];
}

/**
 * Gives the rows of a query from one snapshot, in batches. What fits one batch costs one round trip and keeps
 * nothing; more is read through a cursor, whose cost per row is constant and whose memory is one fetch.
 */
export async function* listRows<Row extends QueryResultRow>(
  connections: Connections,
  query: RowQuery,
  limit: number,
  signal: AbortSignal | undefined,
): AsyncIterable<readonly Row[]> {
  throwIfAborted(signal, 'list the catalog');
  const firstRows = Math.min(limit, listBatchNames + 1);
  const text = `${query.text} LIMIT ${firstRows}`;
  const first = await connections.run<Row>(
    { name: statementName(text), text, operation: 'list' },
    query.values,
  );
  if (first.length < firstRows || firstRows === limit) {
    yield* batches(first, signal);
    return;
  }
  yield* connections.snapshot(async function* (session) {
    const limited = Number.isFinite(limit) ? ` LIMIT ${Math.floor(limit)}` : '';
    await session.run(`DECLARE rows NO SCROLL CURSOR FOR ${query.text}${limited}`, query.values);
    for (;;) {
      const rows = await session.run<Row>(`FETCH ${fetchRows} FROM rows`);
      yield* batches(rows, signal);
      if (rows.length < fetchRows) return;
    }
  });
}

/** Lists come with few limits; the usual one is prepared under a name that follows from the text, others are not. */
function statementName(text: string): string {
  if (!text.endsWith(` LIMIT ${listBatchNames + 1}`)) return '';
  return `filetracker_list_${digestOf(Buffer.from(text)).slice(0, 16)}`;
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
