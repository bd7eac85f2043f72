import { access, readFile } from 'node:fs/promises';
import { unwatchFile, watchFile } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../core/clock.ts';
import { errnoOf, FiletrackerError, fromSystemError, isFiletrackerError } from '../core/errors.ts';
import { checkStoredFormat } from '../core/release.ts';
import { writeFileDurably } from '../fs/durable-file.ts';
import { FolderLock } from '../fs/locks/folder-lock.ts';
import { makeFolderDurably, privateFolderMode } from '../fs/folders.ts';
import {
  tokensFileMode,
  tokensFileName as fileName,
  tokensLockName,
  tokensMarkerName,
} from './token-files.ts';
import { TokenBook, type Token } from './token.ts';
import { checkNameIsNew, isToken, makeToken, noSuchToken } from './token-rules.ts';
import { tokensIntervalMs, type NewToken, type TokenEditor, type TokenSource } from './token-source.ts';

interface TokenFile {
  readonly format: 1;
  readonly tokens: readonly Token[];
}

function parseTokenFile(text: string): readonly Token[] {
  let content: Partial<TokenFile> | undefined;
  try {
    content = JSON.parse(text) as Partial<TokenFile>;
  } catch {
    // Said below, as for any other text that is no list of tokens.
  }
  checkStoredFormat(fileName, content, [1]);
  const { format, tokens } = content ?? {};
  if (format === 1 && Array.isArray(tokens) && tokens.every(isToken)) return tokens;
  throw new FiletrackerError('corrupt-store', `Cannot read "${fileName}": it is no list of tokens`);
}

/** The tokens of a store as they lie on the disk; undefined where there is no file of them. */
async function readTokens(folder: string): Promise<readonly Token[] | undefined> {
  try {
    return parseTokenFile(await readFile(join(folder, fileName), 'utf8'));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw fromSystemError(error, `read "${fileName}"`);
  }
}

/** Whether a store has had tokens, as it remembers itself. */
async function isMarked(folder: string): Promise<boolean> {
  try {
    await access(join(folder, tokensMarkerName));
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw fromSystemError(error, `look for "${tokensMarkerName}"`);
  }
}

/** Runs alone among all processes that change the tokens of a store. */
async function alone<Result>(folder: string, change: () => Promise<Result>): Promise<Result> {
  const lock = await FolderLock.acquire(folder, {
    mode: 'exclusive',
    fileName: tokensLockName,
    fileMode: tokensFileMode,
  });
  try {
    return await change();
  } finally {
    await lock.release();
  }
}

/** Lets a store remember that it has tokens; by one process at a time. */
async function mark(folder: string): Promise<void> {
  if (await isMarked(folder)) return;
  const meaning = `This store has had tokens: without "${fileName}" it is closed to all`;
  const text = `${JSON.stringify({ format: 1, meaning })}\n`;
  await writeFileDurably(join(folder, tokensMarkerName), Buffer.from(text), { mode: tokensFileMode });
}

function lostTokens(): FiletrackerError {
  return new FiletrackerError(
    'corrupt-store',
    `Cannot read "${fileName}": it is gone, and this store has had tokens; it is closed to all until the file ` +
      'is brought back, or tokens are added anew',
  );
}

/**
 * The file of tokens, for the program that changes it. Every change writes the file anew, so that a server
 * sees the old tokens or the new ones; programs that change it at once wait for each other.
 */
export class TokenFileEditor implements TokenEditor {
  readonly #folder: string;
  readonly #clock: Clock;

  constructor(folder: string, clock: Clock) {
    this.#folder = folder;
    this.#clock = clock;
  }

  async list(): Promise<readonly Token[]> {
    return (await readTokens(this.#folder)) ?? [];
  }

  async isOpenToAll(): Promise<boolean> {
    return (await readTokens(this.#folder)) === undefined && !(await isMarked(this.#folder));
  }

  async add(wanted: NewToken): Promise<string> {
    const { text, token } = makeToken(wanted, this.#clock);
    await this.#change((tokens) => {
      checkNameIsNew(token.name, tokens);
      return [...tokens, token];
    });
    return text;
  }

  async remove(name: string): Promise<void> {
    await this.#change((tokens) => {
      const left = tokens.filter((token) => token.name !== name);
      if (left.length === tokens.length) throw noSuchToken(name);
      return left;
    });
  }

  async close(): Promise<void> {
    // Nothing stays open between two changes.
  }

  async #change(change: (tokens: readonly Token[]) => readonly Token[]): Promise<void> {
    await makeFolderDurably(this.#folder, privateFolderMode);
    await alone(this.#folder, async () => {
      const tokens = change(await this.list());
      const text = `${JSON.stringify({ format: 1, tokens } satisfies TokenFile, undefined, 2)}\n`;
      // First, so that there is no instant at which a token was there and nothing tells of it.
      await mark(this.#folder);
      await writeFileDurably(join(this.#folder, fileName), Buffer.from(text), { mode: tokensFileMode });
    });
  }
}

/**
 * The tokens of a store, for a process that serves it.
 *
 * Invariant: rights never widen by an accident. `book` is what was last read whole; a file that is broken or gone leaves
 * the tokens as they were. One that the system does not let this process read may tell of any tokens, and of ones
 * that were removed: nobody is let in until it is read, as nobody is over a first file that is broken. All of it is
 * reported, and tried again. A process that starts refuses to, or finds by the mark that the store has had tokens.
 */
export class TokenStore implements TokenSource {
  readonly #path: string;
  readonly #folder: string;
  readonly #onProblem: (error: unknown) => void;
  #book: TokenBook;
  #configured: boolean;
  #reading: Promise<void> = Promise.resolve();
  #retry: NodeJS.Timeout | undefined;
  #closed = false;
  readonly #onChange = (): void => void this.reload();

  private constructor(
    folder: string,
    tokens: readonly Token[] | undefined,
    parts: { readonly marked: boolean; readonly onProblem: (error: unknown) => void },
  ) {
    this.#folder = folder;
    this.#path = join(folder, fileName);
    this.#configured = tokens !== undefined || parts.marked;
    this.#book = new TokenBook(tokens ?? [], { lost: tokens === undefined && parts.marked });
    this.#onProblem = parts.onProblem;
    if (this.#book.lost) this.#onProblem(lostTokens());
    watchFile(this.#path, { interval: tokensIntervalMs, persistent: false }, this.#onChange);
  }

  /** @throws FiletrackerError `corrupt-store` where the file is no list of tokens, `io` where it can't be read. */
  static async open(folder: string, onProblem: (error: unknown) => void): Promise<TokenStore> {
    const tokens = await readTokens(folder);
    const marked = await isMarked(folder);
    // Written by an earlier release, or by hand.
    if (tokens !== undefined && !marked) await alone(folder, () => mark(folder));
    return new TokenStore(folder, tokens, { marked, onProblem });
  }

  get book(): TokenBook {
    return this.#book;
  }

  /** Whether there are, or ever were, tokens: an empty file of them lets nobody in, a lost one neither. */
  get configured(): boolean {
    return this.#configured;
  }

  /** Reads the file anew; never rejects. */
  reload(): Promise<void> {
    return this.#look(this.#onProblem);
  }

  /** One look at a time, so that none brings back what a later one has replaced. */
  #look(onProblem: (error: unknown) => void): Promise<void> {
    this.#reading = this.#reading.then(() => this.#read()).catch(onProblem);
    return this.#reading;
  }

  async #read(): Promise<void> {
    const tokens = await this.#readTokens();
    if (tokens !== undefined) {
      this.#book = new TokenBook(tokens);
      this.#configured = true;
      if (!(await isMarked(this.#folder))) await alone(this.#folder, () => mark(this.#folder));
    } else if (this.#book.lost || this.#book.unread) {
      this.#book = new TokenBook([], { lost: true });
      throw lostTokens();
    } else if (this.#configured) {
      throw new FiletrackerError(
        'not-found',
        `Cannot read "${fileName}": it is gone; the tokens stay as they were`,
      );
    }
  }

  async #readTokens(): Promise<readonly Token[] | undefined> {
    clearTimeout(this.#retry);
    try {
      return await readTokens(this.#folder);
    } catch (error) {
      if (!this.#configured || !isFiletrackerError(error, 'corrupt-store')) {
        this.#book = new TokenBook([], { unread: true });
        this.#configured = true;
      }
      // What keeps it from being read may end without a change of the file.
      if (!this.#closed)
        this.#retry = setTimeout(() => void this.#look(() => undefined), tokensIntervalMs).unref();
      throw error;
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    unwatchFile(this.#path, this.#onChange);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
