// The tables of the catalog in PostgreSQL and the functions that change them, as numbered migrations. A
// migration that has been released never changes; what is new is a new one. `$schema` stands for the schema's name.
import { helpers, put, remove } from './schema-changes.ts';
import { contents } from './schema-contents.ts';
import { journalState } from './schema-journal.ts';
import { removals } from './schema-removals.ts';
import { tables } from './schema-tables.ts';
import { tokens } from './schema-tokens.ts';
import { unmodified } from './schema-unmodified.ts';

/** Migrations in their order; the first is number 1. */
export const migrations: readonly string[] = [
  tables + helpers + put + remove + contents,
  journalState,
  tokens,
  unmodified,
  removals,
];
