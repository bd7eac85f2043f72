import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { parseAst } from 'vitest/node';

/** A regular expression as it is written in a source file. */
export interface SourcePattern {
  /** File and text, to find it by. */
  readonly place: string;
  readonly pattern: RegExp;
}

interface Found {
  readonly patterns: SourcePattern[];
  /** Places where a pattern is put together at run time. */
  readonly built: string[];
}

function collect(node: unknown, file: string, found: Found): void {
  if (Array.isArray(node)) {
    for (const item of node) collect(item, file, found);
    return;
  }
  if (typeof node !== 'object' || node === null) return;
  const fields: Readonly<Record<string, unknown>> = { ...node };
  const { regex, type, callee } = fields;
  if (typeof regex === 'object' && regex !== null) {
    const { pattern, flags }: Readonly<Record<string, unknown>> = { ...regex };
    found.patterns.push({
      place: `${file}: /${String(pattern)}/${String(flags)}`,
      pattern: new RegExp(String(pattern), String(flags)),
    });
    return;
  }
  const calls = type === 'NewExpression' || type === 'CallExpression';
  if (
    calls &&
    typeof callee === 'object' &&
    callee !== null &&
    'name' in callee &&
    callee.name === 'RegExp'
  ) {
    found.built.push(file);
  }
  for (const value of Object.values(fields)) collect(value, file, found);
}

/** All regular expressions in the sources of a folder; tests are left out. */
export function patternsIn(folder: string): Found {
  const found: Found = { patterns: [], built: [] };
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts'))
    .toSorted();
  for (const name of files) {
    const path = join(folder, name);
    collect(parseAst(readFileSync(path, 'utf8'), { lang: 'ts' }), relative(folder, path), found);
  }
  return found;
}
