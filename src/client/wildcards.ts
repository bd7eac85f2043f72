// Wildcards in one component of a path, as the patterns of `--exclude` and of the cache cleaner share them.

/** `*`, or a test of one character. */
export type Token = 'any' | ((character: string) => boolean);

/** The characters and ranges of a set such as `[a-z_]`; after `!`, all others. */
export function characterSet(members: readonly string[]): (character: string) => boolean {
  const isComplement = members[0] === '!' && members.length > 1;
  const singles = new Set<string>();
  const ranges = new Map<string, readonly [first: string, last: string]>();
  for (let at = isComplement ? 1 : 0; at < members.length; at += 1) {
    const first = members[at] ?? '';
    const last = members[at + 1] === '-' ? members[at + 2] : undefined;
    if (last === undefined) singles.add(first);
    else {
      ranges.set(`${first}-${last}`, [first, last]);
      at += 2;
    }
  }
  const distinct = [...ranges.values()];
  const isMember = (character: string): boolean =>
    singles.has(character) || distinct.some(([first, last]) => first <= character && character <= last);
  return (character) => isMember(character) !== isComplement;
}

/**
 * Whether the tokens match all of a name. Of several `*` only the last one is retried, because those before it matched as
 * little as they could. So the time is bounded by the product of both lengths, which a regular expression's is not.
 */
export function matchesAll(tokens: readonly Token[], characters: readonly string[]): boolean {
  let [token, at] = [0, 0];
  let retry: { token: number; at: number } | undefined;
  while (at < characters.length) {
    const wanted = tokens[token];
    if (wanted === 'any') {
      retry = { token: token + 1, at };
      token += 1;
    } else if (wanted?.(characters[at] ?? '') === true) {
      token += 1;
      at += 1;
    } else if (retry === undefined) {
      return false;
    } else {
      retry.at += 1;
      ({ token, at } = retry);
    }
  }
  return tokens.slice(token).every((left) => left === 'any');
}
