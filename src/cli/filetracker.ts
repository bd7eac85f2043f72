#!/usr/bin/env node
// The build makes CommonJS of this program, because loading an ES module takes Node longer than a small transfer, and a bundle
// of each part that is imported below, because each run needs only one or two of them (scripts/bundle.mjs).
// Nor may this file need more than `plain-get.ts`: an old Node must be able to read it, up to the line that refuses it.
import { mayHaveVersion, readPlainGet } from './client/plain-get.ts';

/** What Node ends an ES module with whose top-level `await` never settles. */
const unsettledCode = 13;

async function main(): Promise<void> {
  const words = process.argv.slice(2);
  const plain = readPlainGet(words);
  if (plain === undefined) {
    const { runProgram } = await import('./client/program.ts');
    await runProgram(words);
    return;
  }
  if (mayHaveVersion(plain)) {
    const { serveCached } = await import('./client/serve-cached.ts');
    if (await serveCached(plain)) return;
  }
  const { getPlainly } = await import('./client/get-plainly.ts');
  await getPlainly(plain);
}

let isDone = false;
// Without it, a program whose work waits for nothing any more would end as if it were done.
process.once('beforeExit', () => {
  if (isDone) return;
  process.stderr.write(
    'filetracker: Cannot continue: internal error (its work never ends); please report it\n',
  );
  process.exitCode = unsettledCode;
});
void main().then(() => {
  isDone = true;
});
