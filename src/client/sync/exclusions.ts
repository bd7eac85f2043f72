// Patterns of `--exclude`, in the form of .gitignore:
//
//   *.o          every file and folder of this name, at any depth
//   /build       only at the top of the tree; so is a pattern with a slash inside, `docs/*.pdf`
//   cache/       only folders
//   **/a, a/**   `**` as a whole component stands for any number of folders
//   [a-z] ? \*   a set (`[!a-z]` its complement), one character, a literal character
//
// A pattern that excludes a folder excludes everything below it. `*`, `?` and sets match no slash; a leading dot is an
// ordinary character.
import { FiletrackerError } from '../../core/errors.ts';
import { withoutTrailingSlashes } from '../../core/file-name.ts';
import { characterSet, matchesAll } from '../wildcards.ts';
import type { Token } from '../wildcards.ts';

type Component = '**' | readonly Token[];

interface Pattern {
  readonly components: readonly Component[];
  readonly foldersOnly: boolean;
}

/** Files and folders of a tree that are neither copied nor deleted. */
export class Exclusions {
  readonly #patterns: readonly Pattern[];

  /** @throws FiletrackerError `invalid-argument` for a pattern that can match nothing. */
  constructor(patterns: readonly string[] = []) {
    this.#patterns = patterns.map(parsePattern);
  }

  /** Whether a pattern matches this very file or folder; `relative` is its path from the top of the tree. */
  matches(relative: string, kind: 'file' | 'folder'): boolean {
    if (this.#patterns.length === 0) return false;
    const names = relative.split('/').map((name) => Array.from(name));
    return this.#patterns.some(
      ({ components, foldersOnly }) => (kind === 'folder' || !foldersOnly) && matchPath(components, names),
    );
  }

  /** Whether a file, or a folder above it, is excluded. */
  excludesFile(relative: string): boolean {
    if (this.#patterns.length === 0) return false;
    for (let slash = relative.indexOf('/'); slash !== -1; slash = relative.indexOf('/', slash + 1)) {
      if (this.matches(relative.slice(0, slash), 'folder')) return true;
    }
    return this.matches(relative, 'file');
  }
}

function refuse(pattern: string, state: string): never {
  throw new FiletrackerError('invalid-argument', `Cannot exclude "${pattern}": ${state}`);
}

function parsePattern(text: string): Pattern {
  if (text.startsWith('!')) {
    refuse(text, 'patterns only exclude; write "\\!" for a name that starts with "!"');
  }
  const path = withoutTrailingSlashes(text);
  const parts = path.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.length === 0) refuse(text, 'it matches no name');
  if (parts.includes('..')) refuse(text, 'patterns start at the top of the tree; ".." is not in it');
  const components = parts.map((part) => (part === '**' ? '**' : parseComponent(part, text)));
  return {
    components: path.includes('/') ? components : ['**', ...components],
    foldersOnly: text.endsWith('/'),
  };
}

function parseComponent(part: string, pattern: string): readonly Token[] {
  const characters = Array.from(part);
  const tokens: Token[] = [];
  for (let at = 0; at < characters.length; at += 1) {
    const character = characters[at] ?? '';
    if (character === '*') {
      if (tokens.at(-1) !== 'any') tokens.push('any');
    } else if (character === '?') {
      tokens.push(() => true);
    } else if (character === '[') {
      const end = characters.indexOf(']', at + (characters[at + 1] === '!' ? 3 : 2));
      if (end === -1) refuse(pattern, '"[" has no "]"; write "\\[" for the character');
      tokens.push(characterSet(characters.slice(at + 1, end)));
      at = end;
    } else {
      if (character === '\\') at += 1;
      const literal = characters[at];
      if (literal === undefined) refuse(pattern, 'it ends in a single "\\"');
      tokens.push((other) => other === literal);
    }
  }
  return tokens;
}

/** As `matchesAll`, of the components of a path. */
function matchPath(components: readonly Component[], names: readonly (readonly string[])[]): boolean {
  let [component, name] = [0, 0];
  let retry: { component: number; name: number } | undefined;
  while (name < names.length) {
    const wanted = components[component];
    if (wanted === '**') {
      // `a/**` matches everything in `a`, of which there is a name left here, but not `a`.
      if (component === components.length - 1) return true;
      retry = { component: component + 1, name };
      component += 1;
    } else if (wanted !== undefined && matchesAll(wanted, names[name] ?? [])) {
      component += 1;
      name += 1;
    } else if (retry === undefined) {
      return false;
    } else {
      retry.name += 1;
      ({ component, name } = retry);
    }
  }
  return component === components.length;
}
