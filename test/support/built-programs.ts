import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface User {
  readonly uid: number;
  readonly gid: number;
}

export const projectFolder = fileURLToPath(new URL('../..', import.meta.url));

/** Names a folder with a copy of the project that every user can read; unset where they can read this one. */
export const copyVariable = 'FILETRACKER_TEST_COPY';

/** The Node.js in such a copy. */
export function nodeIn(copy: string): string {
  return join(copy, 'node');
}

/** The file of a built program, as npm would link it. `npm test` builds it before the tests. */
export function programPath(name: string, project = projectFolder): string {
  const base = join(project, 'dist', 'cli', name);
  return existsSync(`${base}.cjs`) ? `${base}.cjs` : `${base}.js`;
}

/** Node.js and a program that it runs, both of which a user can read. */
export function commandFor(name: string, user?: User): { readonly node: string; readonly path: string } {
  const copy = user === undefined ? undefined : process.env[copyVariable];
  if (copy === undefined) return { node: process.execPath, path: programPath(name) };
  return { node: nodeIn(copy), path: programPath(name, copy) };
}
