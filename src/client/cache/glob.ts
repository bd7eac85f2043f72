import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

const special = /[*?[]/;
/** Letters of a component; a whole path has no more (PATH_MAX). */
const patternMax = 4096;

/** `*`, or what one letter must be. */
type Step = 'any' | ((letter: string) => boolean);

/** The letters and ranges of a `[…]`, as `a-z_`; beginning with `!`, all others. */
function letterClass(text: string): (letter: string) => boolean {
  const negated = text.startsWith('!') && text.length > 1;
  const body = negated ? text.slice(1) : text;
  const ranges = new Set<string>();
  let singles = '';
  let start = 0;
  for (let dash = body.indexOf('-', 1); dash !== -1; dash = body.indexOf('-', start + 1)) {
    if (dash + 1 === body.length) break;
    singles += body.slice(start, dash - 1);
    ranges.add(body.slice(dash - 1, dash + 2));
    start = dash + 2;
  }
  singles += body.slice(start);
  const distinct = [...ranges];
  return (letter) =>
    negated !==
    (singles.includes(letter) ||
      distinct.some((range) => range.slice(0, 1) <= letter && letter <= range.slice(2)));
}

function stepsOf(component: string): Step[] {
  const letters = Array.from(component);
  const lastClosing = letters.lastIndexOf(']');
  const steps: Step[] = [];
  for (let at = 0; at < letters.length; at += 1) {
    const letter = letters[at] ?? '';
    const closing = letter === '[' && at + 2 <= lastClosing ? letters.indexOf(']', at + 2) : -1;
    if (closing !== -1) {
      steps.push(letterClass(letters.slice(at + 1, closing).join('')));
      at = closing;
    } else if (letter === '?') steps.push(() => true);
    else if (letter !== '*') steps.push((other) => other === letter);
    else if (steps.at(-1) !== 'any') steps.push('any');
  }
  return steps;
}

/**
 * Whether the steps match all of a name. Of several `*` only the last one is ever tried again: the ones before it
 * took as little as they could. So the time is bounded by the product of both lengths, which a regular expression's is not.
 */
function matches(steps: readonly Step[], letters: readonly string[]): boolean {
  let step = 0;
  let at = 0;
  let star = -1;
  let starAt = 0;
  while (at < letters.length) {
    const wanted = steps[step];
    if (wanted === 'any') {
      star = step;
      starAt = at;
      step += 1;
    } else if (wanted?.(letters[at] ?? '') === true) {
      step += 1;
      at += 1;
    } else if (star !== -1) {
      starAt += 1;
      at = starAt;
      step = star + 1;
    } else return false;
  }
  return steps.slice(step).every((rest) => rest === 'any');
}

/** What a component of a pattern matches: `*`, `?` and `[…]`, and like in a shell no dot at the start. */
export function componentMatcher(component: string): (name: string) => boolean {
  if (component.length > patternMax) return () => false;
  const steps = stepsOf(component);
  const lettersMin = steps.filter((step) => step !== 'any').length;
  return (name) => {
    if (name.length < lettersMin || (name.startsWith('.') && !component.startsWith('.'))) return false;
    return matches(steps, Array.from(name));
  };
}

/**
 * Whether a path is called like a pattern itself. Not if another user made it: everyone can create a folder called `*`
 * in /tmp, and would hide all others.
 */
function isLiteral(pattern: string): boolean {
  const attributes = statSync(pattern, { throwIfNoEntry: false });
  return attributes !== undefined && (attributes.uid === 0 || attributes.uid === process.geteuid?.());
}

/**
 * The paths that exist and match a pattern with `*`, `?` and `[…]`, sorted; folders that can't be read match nothing.
 * A path that exists under the very name is meant literally, and so is each part of it with brackets.
 */
export function expandGlob(pattern: string): string[] {
  if (isLiteral(pattern)) return [pattern];
  const absolute = pattern.startsWith('/');
  let paths = [absolute ? '/' : '.'];
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
    return []; // No folder, or not ours to read: as in a shell, it matches nothing.
  }
}
