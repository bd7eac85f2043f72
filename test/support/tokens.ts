import { systemClock } from '../../src/core/clock.ts';
import type { Access, Right } from '../../src/access/access.ts';
import { TokenAccess, type AnonymousAccess } from '../../src/access/token-access.ts';
import { makeSecret, type Token } from '../../src/access/token.ts';
import { TokenBook } from '../../src/access/token-book.ts';

/** What tokens of a test may do, by their names: prefixes and rights. */
export type TokenPlan = Readonly<Record<string, readonly [prefix: string, ...rights: Right[]]>>;

export interface TestTokens {
  readonly access: Access;
  /** An Authorization header of the token of that name. */
  header(name: string): Record<string, string>;
  text(name: string): string;
}

export function makeTokens(
  plan: TokenPlan,
  anonymous: AnonymousAccess = 'none',
  state: { readonly lost?: boolean } = {},
): TestTokens {
  const texts = new Map<string, string>();
  const tokens = Object.entries(plan).map(([name, [prefix, ...rights]]): Token => {
    const { text, id, secretHash } = makeSecret();
    texts.set(name, text);
    return { name, id, secretHash, prefixes: prefix.split(' '), rights, createdAtMs: 0 };
  });
  const book = new TokenBook(tokens, state);
  const text = (name: string): string => texts.get(name) ?? '';
  return {
    access: new TokenAccess({ tokens: () => book, anonymous: () => anonymous, clock: systemClock }),
    header: (name) => ({ Authorization: `Bearer ${text(name)}` }),
    text,
  };
}
