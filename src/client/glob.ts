import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const special = /[*?[]/;

/** What a component of a pattern matches: `*`, `?` and `[…]`, and like in a shell no dot at the start. */
function componentMatcher(component: string): (name: string) => boolean {
  const source = component.replace(/\[!?[^\]]+\]|[\s\S]/g, (part) => {
    if (part === '*') return '.*';
    if (part === '?') return '.';
    if (part.length > 1) return part.replace(/^\[!/, '[^').replaceAll('\\', '\\\\');
    return part.replace(/[.+^${}()|[\]\\]/g, '\\$&');
  });
  const expression = new RegExp(`^${source}$`, 's');
  return (name) => expression.test(name) && (component.startsWith('.') || !name.startsWith('.'));
}

/** The paths that exist and match a pattern with `*`, `?` and `[…]`, sorted; folders that can't be read match nothing. */
export function expandGlob(pattern: string): string[] {
  const absolute = pattern.startsWith('/');
  let paths = [absolute ? '/' : '.'];
  for (const component of pattern.split('/').filter((part) => part !== '' && part !== '.')) {
    paths = paths.flatMap((path) => {
      if (!special.test(component)) {
        const next = join(path, component);
        return existsSync(next) ? [next] : [];
      }
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
    return []; // No folder, or not ours to read: as in a shell, it matches nothing.
  }
}
