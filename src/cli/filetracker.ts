#!/usr/bin/env node
import { readPlainGet, serveCached } from './client/plain-get.ts';

const words = process.argv.slice(2);
const plain = readPlainGet(words);
if (plain === undefined) {
  const { runProgram } = await import('./client/program.ts');
  await runProgram(words);
} else if (!(await serveCached(plain))) {
  const { getPlainly } = await import('./client/file-commands.ts');
  await getPlainly(plain);
}
