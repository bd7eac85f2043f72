import type { Reporter, TestModule } from 'vitest/node';

/** Set to `required`, nothing may be left out: not the engines of the scale-out store, nor a single test. */
export const everythingIsRequired = process.env['FILETRACKER_ENGINES'] === 'required';

/** Fails a run in which a test was skipped. It is to be the first reporter, so that the summary stays the last. */
export class RequiredTests implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const skipped = modules.flatMap((module) => [...module.children.allTests('skipped')]);
    for (const test of skipped)
      console.error(`Skipped, but required: ${test.fullName} (${test.module.moduleId})`);
    if (skipped.length > 0) process.exitCode = 1;
  }
}
