import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../core/clock.ts';
import { cannot, errnoOf, isFiletrackerError, type FiletrackerError } from '../core/errors.ts';
import { checkStoredFormat } from '../core/release.ts';
import { writeFileDurably } from '../fs/durable-file.ts';
import { FolderLock } from '../fs/locks/folder-lock.ts';
import { exists, makeFolderDurably, privateFolderMode, unlessMissing } from '../fs/folders.ts';
import {
  tokensFileMode,
  tokensFileName as fileName,
  tokensLockName,
  tokensMarkerName,
} from './token-files.ts';
import { TokenBook } from './token-book.ts';
import { checkNameIsNew, isToken, makeToken, noSuchToken, type NewToken, type Token } from './token.ts';
import { tokensIntervalMs, type TokenEditor, type TokenSource } from './token-source.ts';

interface TokenFile {
  readonly format: 1;
  readonly tokens: readonly Token[];
}

function parseTokenFile(text: string): readonly Token[] {
  let content: Partial<TokenFile> | undefined;
  try {
    content = JSON.parse(text) as Partial<TokenFile>;
  } catch {
    // Reported below, as for any other text that is not a list of tokens.
  }
  checkStoredFormat(fileName, content, [1]);
  const { format, tokens } = content ?? {};
  if (format === 1 && Array.isArray(tokens) && tokens.every(isToken)) return tokens;
  throw cannot('corrupt-store', `read "${fileName}"`, 'it is not a list of tokens');
}

/** The stored tokens; `undefined` if there is no file. */
async function readTokens(folder: string): Promise<readonly Token[] | undefined> {
  const text = await unlessMissing(readFile(join(folder, fileName), 'utf8'), `read "${fileName}"`);
  return text === undefined ? undefined : parseTokenFile(text);
}

/** What changes whenever the file does: a value to compare, nothing to read. */
async function stateOfTokens(folder: string): Promise<string> {
  try {
    const { ino, size, mtimeNs, ctimeNs } = await stat(join(folder, fileName), { bigint: true });
    return [ino, size, mtimeNs, ctimeNs].join();
  } catch (error) {
    return String(errnoOf(error));
  }
}

/** Whether the store ever had tokens. */
function isMarked(folder: string): Promise<boolean> {
  return exists(join(folder, tokensMarkerName), `look for "${tokensMarkerName}"`);
}

/** Excludes all other processes that change the tokens of a store. */
async function alone<Result>(folder: string, change: () => Promise<Result>): Promise<Result> {
  const options = { mode: 'exclusive', fileName: tokensLockName, fileMode: tokensFileMode } as const;
  await using _lock = await FolderLock.acquire(folder, options);
  return await change();
}

/** Records that the store has tokens. One process at a time. */
async function mark(folder: string): Promise<void> {
  if (await isMarked(folder)) return;
  const meaning = `This store has had tokens: without "${fileName}" it is closed to all`;
  const text = `${JSON.stringify({ format: 1, meaning })}\n`;
  await writeFileDurably(join(folder, tokensMarkerName), Buffer.from(text), { mode: tokensFileMode });
}

function lostTokens(): FiletrackerError {
  const state = 'it is gone, and this store has had tokens, so it is closed to all clients';
  return cannot('corrupt-store', `read "${fileName}"`, `${state}; restore the file or add tokens`);
}

/** Edits the file of tokens. Every change replaces the file, so that a server sees the old tokens or the new ones. */
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
    // Nothing is open between two changes.
  }

  async #change(change: (tokens: readonly Token[]) => readonly Token[]): Promise<void> {
    await makeFolderDurably(this.#folder, privateFolderMode);
    await alone(this.#folder, async () => {
      const tokens = change(await this.list());
      const text = `${JSON.stringify({ format: 1, tokens } satisfies TokenFile, undefined, 2)}\n`;
      // The marker is first, so that it exists whenever a token does.
      await mark(this.#folder);
      await writeFileDurably(join(this.#folder, fileName), Buffer.from(text), { mode: tokensFileMode });
    });
  }
}

/**
 * The file of tokens, for a process that serves the store.
 *
 * Invariant: a failure never widens rights. `book` has the tokens that were last read whole; if the file becomes broken
 * or goes missing, the tokens stay as they were. A file that this process may not read may have any tokens, and may lack
 * removed ones, so no client is admitted until it is read; the same holds for a first file that is broken. All of this is
 * reported, and retried. A process that starts with a broken file fails; one that starts without the file knows from
 * the marker that the store has had tokens.
 */
export class TokenStore implements TokenSource {
  readonly #folder: string;
  readonly #onProblem: (error: unknown) => void;
  #book: TokenBook;
  #configured: boolean;
  /** The state of the file before its last read, so that a change during the read is seen by the next look. */
  #state: string;
  /** Whether the last read failed: its cause may end without a change of the file. */
  #failed = false;
  #reading: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  private constructor(
    folder: string,
    tokens: readonly Token[] | undefined,
    parts: {
      readonly state: string;
      readonly marked: boolean;
      readonly onProblem: (error: unknown) => void;
    },
  ) {
    this.#folder = folder;
    this.#state = parts.state;
    this.#configured = tokens !== undefined || parts.marked;
    this.#book = new TokenBook(tokens ?? [], { lost: tokens === undefined && parts.marked });
    this.#onProblem = parts.onProblem;
    if (this.#book.lost) this.#onProblem(lostTokens());
    this.#lookLater();
  }

  /** @throws FiletrackerError `corrupt-store` if the file is not a list of tokens, `io` if it cannot be read. */
  static async open(folder: string, onProblem: (error: unknown) => void): Promise<TokenStore> {
    const state = await stateOfTokens(folder);
    const tokens = await readTokens(folder);
    const marked = await isMarked(folder);
    // The file was written by an earlier release, or by hand.
    if (tokens !== undefined && !marked) await alone(folder, () => mark(folder));
    return new TokenStore(folder, tokens, { state, marked, onProblem });
  }

  get book(): TokenBook {
    return this.#book;
  }

  get configured(): boolean {
    return this.#configured;
  }

  reload(): Promise<void> {
    return this.#readNext(this.#onProblem);
  }

  /** `fs.watchFile()` compares with its own first look, which may come after a change that no read has seen. */
  #lookLater(): void {
    if (this.#closed) return;
    this.#timer = setTimeout(() => void this.#look(), tokensIntervalMs).unref();
  }

  async #look(): Promise<void> {
    const changed = (await stateOfTokens(this.#folder)) !== this.#state;
    if (this.#closed) return;
    if (changed) await this.reload();
    else if (this.#failed) await this.#readNext(() => undefined);
    this.#lookLater();
  }

  /** One read at a time, so that none overwrites the result of a later one. */
  #readNext(onProblem: (error: unknown) => void): Promise<void> {
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
      throw cannot('not-found', `read "${fileName}"`, 'it is gone; the tokens stay as they were');
    }
  }

  async #readTokens(): Promise<readonly Token[] | undefined> {
    this.#state = await stateOfTokens(this.#folder);
    try {
      const tokens = await readTokens(this.#folder);
      this.#failed = false;
      return tokens;
    } catch (error) {
      this.#failed = true;
      if (!this.#configured || !isFiletrackerError(error, 'corrupt-store')) {
        this.#book = new TokenBook([], { unread: true });
        this.#configured = true;
      }
      throw error;
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
