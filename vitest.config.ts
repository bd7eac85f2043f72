import { defineConfig } from 'vitest/config';
import { installedEngines } from './test/support/installed-engines.ts';

const installed = installedEngines();
/** What tests of the scale-out store need is in their file names. */
const engineTests = [
  { kind: 'postgres', needs: 'PostgreSQL', there: installed.postgres },
  { kind: 's3', needs: 'an S3 server (Ceph radosgw)', there: installed.s3 },
  { kind: 'scale-out', needs: 'PostgreSQL and an S3 server', there: installed.postgres && installed.s3 },
  {
    kind: 'balanced',
    needs: 'PostgreSQL, an S3 server, HAProxy or curl',
    there: installed.postgres && installed.s3 && installed.balancer,
  },
] as const;
const missing = engineTests.filter((tests) => !tests.there);
for (const { kind, needs } of missing) {
  const text = `Left out: test/engines/*.${kind}.test.ts, because ${needs} is not installed`;
  if (process.env['FILETRACKER_ENGINES'] === 'required') throw new Error(text);
  console.warn(`${text}; "npm run test:engines" installs it and runs them.`);
}
const present = engineTests.filter((tests) => tests.there);

const common = {
  pool: 'forks',
  maxWorkers: 2,
  // Of a slow machine, or one that does other things as well: what hangs is found a little later.
  testTimeout: 60_000,
  expect: { poll: { timeout: 10_000 } },
  hookTimeout: 60_000,
} as const;

export default defineConfig({
  test: {
    ...common,
    projects: [
      {
        test: {
          ...common,
          name: 'own',
          include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
          exclude: ['test/engines/**'],
        },
      },
      ...(present.length === 0
        ? []
        : [
            {
              test: {
                ...common,
                name: 'engines',
                include: present.map(({ kind }) => `test/engines/**/*.${kind}.test.ts`),
                globalSetup: ['test/support/engines-setup.ts'],
              },
            },
          ]),
    ],
  },
});
