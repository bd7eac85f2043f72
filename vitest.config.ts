import { defineConfig } from 'vitest/config';
import { cleanEnvironment } from './test/support/environment.ts';
import { installedEngines } from './test/support/installed-engines.ts';
import { everythingIsRequired, RequiredTests } from './test/support/required-tests.ts';

cleanEnvironment();
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
  { kind: 'nginx', needs: 'nginx', there: installed.proxy },
] as const;
const missing = engineTests.filter((tests) => !tests.there);
for (const { kind, needs } of missing) {
  const text = `Left out: test/engines/*.${kind}.test.ts, because ${needs} is not installed`;
  if (everythingIsRequired) throw new Error(text);
  if (!process.argv.includes('--project'))
    console.warn(`${text}; "npm run test:engines" installs it and runs them.`);
}
const present = engineTests.filter((tests) => tests.there);

/** Files that take more than some seconds, most of them because they start programs. */
const slowTests = '**/*.slow.test.ts';
/** Files that replace a module of Node for themselves. */
const isolatedTests = '**/*.isolated.test.ts';

const common = {
  pool: 'forks',
  maxWorkers: 2,
  // Of a slow machine, or one that does other things as well: what hangs is found a little later.
  testTimeout: 180_000,
  expect: { poll: { timeout: 60_000 } },
  hookTimeout: 180_000,
} as const;

/** A file for the counts of the run as JSON, which `npm run test:nodes` adds up. */
const report = process.env['FILETRACKER_TEST_REPORT'];

function jsonReporter(outputFile: string): ['json', { outputFile: string }] {
  return ['json', { outputFile }];
}

export default defineConfig({
  test: {
    ...common,
    reporters: [
      ...(everythingIsRequired ? [new RequiredTests()] : []),
      ...(report === undefined ? [] : [jsonReporter(report)]),
      'default',
    ],
    projects: [
      {
        test: {
          ...common,
          name: 'fast',
          include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
          exclude: ['test/engines/**', 'test/proof/**', slowTests, isolatedTests],
          globalSetup: ['test/support/copy-for-others.ts'],
          // Modules are loaded once for all files of a worker, which halves the processor time.
          isolate: false,
        },
      },
      { test: { ...common, name: 'isolated', include: [isolatedTests] } },
      {
        test: {
          ...common,
          name: 'slow',
          include: [slowTests, 'test/proof/**/*.test.ts'],
          globalSetup: ['test/support/copy-for-others.ts'],
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
