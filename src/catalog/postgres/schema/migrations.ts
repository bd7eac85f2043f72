import { contents } from './blobs.ts';
import { helpers, put, removals, remove, unmodified } from './changes.ts';
import { journalState, tables, tokens } from './tables.ts';

/**
 * The migrations of the schema, in order; the first has number 1. A released migration never changes: each change of the
 * schema is a new one. `$schema` stands for the name of the schema.
 */
export const migrations: readonly string[] = [
  tables + helpers + put + remove + contents,
  journalState,
  tokens,
  unmodified,
  removals,
];
