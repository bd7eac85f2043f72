import type { Right } from './access.ts';
import type { Token, TokenBook } from './token.ts';

/** How often a running server looks whether the tokens have changed: one that was removed works so long at the most. */
export const tokensIntervalMs = 500;

/** What a token is made of, as it is asked for. */
export interface NewToken {
  readonly name: string;
  readonly prefixes: readonly string[];
  readonly rights: readonly Right[];
  readonly expiresAtMs?: number | undefined;
}

/** The tokens of a store, for a process that serves it; who opened it closes it. */
export interface TokenSource {
  /** What was last read whole, or nothing that lets anybody in: rights never widen by an accident. */
  readonly book: TokenBook;
  /** Whether there are, or ever were, tokens: a store that has had them never opens to all by itself. */
  readonly configured: boolean;
  /** Reads the tokens anew; never rejects. */
  reload(): Promise<void>;
  /** Idempotent. */
  close(): Promise<void>;
}

/** The tokens of a store, for the program that changes them; programs that do so at once wait for each other. */
export interface TokenEditor {
  list(): Promise<readonly Token[]>;
  /** Whether who sends no token may do everything, unless a flag of the server says otherwise. */
  isOpenToAll(): Promise<boolean>;
  /** Adds a token and gives its text, which is kept nowhere. @throws FiletrackerError `invalid-argument`. */
  add(wanted: NewToken): Promise<string>;
  /** @throws FiletrackerError `not-found`. */
  remove(name: string): Promise<void>;
  /** Idempotent. */
  close(): Promise<void>;
}
