import type { NewToken, Token } from './token.ts';
import type { TokenBook } from './token-book.ts';

/** How often a running server looks for changed tokens; a removed token works for this long at most. */
export const tokensIntervalMs = 500;

/** The tokens of a store, for a process that serves it. Its opener closes it. */
export interface TokenSource {
  /** The tokens that were last read whole, or a book that admits no one: a failure never widens rights. */
  readonly book: TokenBook;
  /** Whether the store has, or ever had, tokens: such a store never opens to all by itself. */
  readonly configured: boolean;
  /** Reads the tokens again; never rejects. */
  reload(): Promise<void>;
  /** Idempotent. */
  close(): Promise<void>;
}

/** The tokens of a store, for the program that changes them. Concurrent changes wait for each other. */
export interface TokenEditor {
  list(): Promise<readonly Token[]>;
  /** Whether clients without a token may do everything, unless a flag of the server says otherwise. */
  isOpenToAll(): Promise<boolean>;
  /** Adds a token and returns its text, which is not stored. @throws FiletrackerError `invalid-argument`. */
  add(wanted: NewToken): Promise<string>;
  /** @throws FiletrackerError `not-found`. */
  remove(name: string): Promise<void>;
  /** Idempotent. */
  close(): Promise<void>;
}
