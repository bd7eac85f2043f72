import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { characterSet, matchesAll } from '../wildcards.ts';
import type { Token } from '../wildcards.ts';

const special = /[*?[]/;
/** Characters of a component; a whole path has no more (PATH_MAX). */
const patternMax = 4096;

function tokensOf(component: string): Token[] {
  const characters = Array.from(component);
  const lastClosing = characters.lastIndexOf(']');
  const tokens: Token[] = [];
  for (let at = 0; at < characters.length; at += 1) {
    const character = characters[at] ?? '';
    const closing = character === '[' && at + 2 <= lastClosing ? characters.indexOf(']', at + 2) : -1;
    if (closing !== -1) {
      tokens.push(characterSet(characters.slice(at + 1, closing)));
      at = closing;
    } else if (character === '?') tokens.push(() => true);
    else if (character !== '*') tokens.push((other) => other === character);
    else if (tokens.at(-1) !== 'any') tokens.push('any');
  }
  return tokens;
}

/** Matches names against `*`, `?` and `[…]`, and as in a shell no dot at the start. */
export function componentMatcher(component: string): (name: string) => boolean {
  if (component.length > patternMax) return () => false;
  const tokens = tokensOf(component);
  const charactersMin = tokens.filter((token) => token !== 'any').length;
  return (name) => {
    if (name.length < charactersMin || (name.startsWith('.') && !component.startsWith('.'))) return false;
    return matchesAll(tokens, Array.from(name));
  };
}

/**
 * Whether a pattern is also the name of an existing file. Not of another user's file: every user can create a folder
 * called `*` in /tmp, which would hide all others.
 */
function isLiteral(pattern: string): boolean {
  const attributes = statSync(pattern, { throwIfNoEntry: false });
  return attributes !== undefined && (attributes.uid === 0 || attributes.uid === process.geteuid?.());
}

/**
 * The existing paths that match a pattern with `*`, `?` and `[…]`, sorted; unreadable folders match nothing. A pattern that
 * is the name of an existing file stands for that file, and so does each component with brackets.
 */
export function expandGlob(pattern: string): string[] {
  if (isLiteral(pattern)) return [pattern];
  let paths = [pattern.startsWith('/') ? '/' : '.'];
  for (const component of pattern.split('/').filter((part) => part !== '' && part !== '.')) {
    paths = paths.flatMap((path) => {
      const next = join(path, component);
      if (!special.test(component)) return existsSync(next) ? [next] : [];
      if (!/[*?]/.test(component) && isLiteral(next)) return [next];
      return namesIn(path)
        .filter(componentMatcher(component))
        .map((name) => join(path, name));
    });
  }
  return paths.sort();
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // Not a readable folder: as in a shell, it matches nothing.
  }
}
