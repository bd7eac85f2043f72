import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { temporaryFolder } from '../../../test/support/temporary-folder.ts';
import { migrateTree } from './migrate.ts';
import type { Excludes } from './file-tree.ts';
import type { MigrationTarget } from './migrate.ts';

test('a file that is removed during a migration is counted apart, and is no failure', async () => {
  const folder = await temporaryFolder();
  for (const name of ['a', 'b']) writeFileSync(join(folder, name), name);
  const target: MigrationTarget = {
    stat: () => Promise.resolve(undefined),
    put: ({ path }) => {
      if (path.endsWith('a')) return Promise.resolve({ stored: true, sent: true });
      rmSync(path);
      return Promise.reject(new Error('it is not there'));
    },
  };
  const report = await migrateTree(folder, target, { jobs: 1 });
  expect(report).toMatchObject({ files: 1, stored: 1, vanishedCount: 1, errorCount: 0, skippedCount: 0 });
});

test('a migration leaves out what is excluded, below the top of the tree', async () => {
  const folder = await temporaryFolder();
  const tree = join(folder, 'tree');
  for (const path of ['a.o', 'kept', 'build/x', 'sub/build/y', 'sub/b.o', 'sub/docs/build']) {
    mkdirSync(dirname(join(tree, path)), { recursive: true });
    writeFileSync(join(tree, path), path);
  }
  const names: string[] = [];
  const target: MigrationTarget = {
    stat: () => Promise.resolve(undefined),
    put: ({ name }) => {
      names.push(name);
      return Promise.resolve({ stored: true, sent: true });
    },
  };
  const excludes: Excludes = (relative, kind) =>
    relative.endsWith('.o') || (kind === 'folder' && relative === 'build');
  const report = await migrateTree(tree, target, { root: folder, excludes });
  expect(names.toSorted()).toEqual(['/tree/kept', '/tree/sub/build/y', '/tree/sub/docs/build']);
  expect(report).toMatchObject({ files: 3, skippedCount: 0, errorCount: 0 });
  names.length = 0;
  await migrateTree(join(tree, 'a.o'), target, { root: folder, excludes });
  expect(names).toEqual([]);
});

test('a migration rounds the times of files down to a second, also before 1970', async () => {
  const folder = await temporaryFolder();
  const times = { '1700000000.999999999': 1_700_000_000, '-0.000000001': -1 };
  for (const time of Object.keys(times)) {
    writeFileSync(join(folder, time), '');
    execFileSync('touch', ['-d', `@${time}`, join(folder, time)]);
  }
  const versions = new Map<string, number>();
  const target: MigrationTarget = {
    stat: () => Promise.resolve(undefined),
    put: ({ name, version }) => {
      versions.set(name.slice(1), version);
      return Promise.resolve({ stored: true, sent: true });
    },
  };
  await migrateTree(folder, target);
  expect(Object.fromEntries(versions)).toEqual(times);
});
