import { Connections, type Session } from '../catalog/postgres/connections.ts';
import { migration } from '../catalog/postgres/migrate.ts';
import type { ConnectionOptions } from '../catalog/postgres/pools.ts';
import type { Clock } from '../core/clock.ts';
import { FiletrackerError } from '../core/errors.ts';
import { TokenBook, type Token } from './token.ts';
import { checkNameIsNew, isToken, makeToken, noSuchToken } from './token-rules.ts';
import { tokensIntervalMs, type NewToken, type TokenEditor, type TokenSource } from './token-source.ts';

const snapshot = { begin: 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY' };
/** Told apart from other locks of this schema. */
const lockNumber = 7343;

/** The tokens of a database at one moment. */
interface KeptTokens {
  /** Undefined where the store has never had a token. */
  readonly changeNumber: number | undefined;
  readonly tokens: readonly Token[];
  /** Whether tokens were there that no program has removed. */
  readonly lost: boolean;
}

interface TokenRow {
  readonly name: string;
  readonly id: string;
  readonly secret_hash: string;
  readonly prefixes: readonly string[];
  readonly rights: readonly string[];
  readonly created_ms: number;
  readonly expires_ms: number | null;
}

/** @throws FiletrackerError `corrupt-store`. */
function tokenOf(row: TokenRow): Token {
  const token: unknown = {
    name: row.name,
    id: row.id,
    secretHash: row.secret_hash,
    prefixes: row.prefixes,
    rights: row.rights,
    createdAtMs: row.created_ms,
    ...(row.expires_ms !== null && { expiresAtMs: row.expires_ms }),
  };
  if (isToken(token)) return token;
  throw new FiletrackerError('corrupt-store', `Cannot read the table "token": "${row.name}" is no token`);
}

async function readTokens(session: Session, schema: string): Promise<KeptTokens> {
  const [state] = await session.run<{ change_number: number; tokens: number }>(
    `SELECT change_number, tokens FROM ${schema}.token_state`,
  );
  const rows = await session.run<TokenRow>(`SELECT * FROM ${schema}.token ORDER BY created_ms, name`);
  const lost = rows.length === 0 && state !== undefined && state.tokens > 0;
  return { changeNumber: state?.change_number, tokens: rows.map(tokenOf), lost };
}

async function openConnections(options: ConnectionOptions, mayCreate = true): Promise<Connections> {
  const tables = migration(mayCreate ? {} : { existing: 'upgrade' });
  return Connections.create({ ...options, poolSize: 1, listPoolSize: 1 }, tables);
}

function lostTokens(): FiletrackerError {
  return new FiletrackerError(
    'corrupt-store',
    'Cannot read the table "token": its tokens are gone, and this store has had some; it is closed to all until ' +
      'they are brought back, or tokens are added anew',
  );
}

/** The tokens in a database, which all servers of it share, for the program that changes them. */
export class PostgresTokenEditor implements TokenEditor {
  readonly #connections: Connections;
  readonly #clock: Clock;

  private constructor(connections: Connections, clock: Clock) {
    this.#connections = connections;
    this.#clock = clock;
  }

  /**
   * @param options.create whether the tables are made if they are missing.
   * @throws FiletrackerError `unavailable` where the database cannot be reached, `not-found` where it holds no store.
   */
  static async open(
    connection: ConnectionOptions,
    { clock, create }: { readonly clock: Clock; readonly create: boolean },
  ): Promise<PostgresTokenEditor> {
    const connections = await openConnections(connection, create);
    try {
      await connections.prepare();
    } catch (error) {
      await connections.close();
      throw error;
    }
    return new PostgresTokenEditor(connections, clock);
  }

  async list(): Promise<readonly Token[]> {
    return (await this.#read()).tokens;
  }

  async isOpenToAll(): Promise<boolean> {
    return (await this.#read()).changeNumber === undefined;
  }

  #read(): Promise<KeptTokens> {
    const connections = this.#connections;
    return connections.transaction((session) => readTokens(session, connections.schema), snapshot);
  }

  async add(wanted: NewToken): Promise<string> {
    const { text, token } = makeToken(wanted, this.#clock);
    await this.#change(async (session, schema) => {
      checkNameIsNew(token.name, (await readTokens(session, schema)).tokens);
      await session.run(
        `INSERT INTO ${schema}.token (name, id, secret_hash, prefixes, rights, created_ms, expires_ms)
          VALUES ($1, $2, $3, $4, $5, $6, $7)`,
        [
          token.name,
          token.id,
          token.secretHash,
          token.prefixes,
          token.rights,
          token.createdAtMs,
          token.expiresAtMs ?? null,
        ],
      );
    });
    return text;
  }

  async remove(name: string): Promise<void> {
    await this.#change(async (session, schema) => {
      const rows = await session.run(`DELETE FROM ${schema}.token WHERE name = $1 RETURNING name`, [name]);
      if (rows.length === 0) throw noSuchToken(name);
    });
  }

  async #change(change: (session: Session, schema: string) => Promise<void>): Promise<void> {
    const { schema } = this.#connections;
    await this.#connections.transaction(async (session) => {
      await session.run(`SELECT pg_advisory_xact_lock(hashtextextended($1, ${lockNumber}))`, [schema]);
      await change(session, schema);
      // A row of it is there by now: the change itself has made it.
      await session.run(`UPDATE ${schema}.token_state SET tokens = (SELECT count(*) FROM ${schema}.token)`);
    });
  }

  async close(): Promise<void> {
    await this.#connections.close();
  }
}

export interface PostgresTokensOptions extends ConnectionOptions {
  /** Whether tokens lie in the folder of this server, which does not use them. */
  readonly folderHasTokens: boolean;
  /** Told once each time that the tokens can't be read any more. */
  readonly onProblem: (error: unknown) => void;
}

/**
 * The tokens in a database, for a process that serves it. It looks for changes twice a second.
 *
 * Invariant: `book` is what was last read whole; until there was such a read nobody is let in or turned away, but asked
 * to come again. `configured` never becomes false: a database that cannot be read does not open a store.
 */
export class PostgresTokens implements TokenSource {
  readonly #connections: Connections;
  readonly #options: PostgresTokensOptions;
  readonly #timer: NodeJS.Timeout;
  #book = new TokenBook([], { unread: true });
  #configured = true;
  #changeNumber: number | undefined;
  #hasProblem = false;
  #reading: Promise<void> | undefined;

  private constructor(connections: Connections, options: PostgresTokensOptions) {
    this.#connections = connections;
    this.#options = options;
    this.#timer = setInterval(() => void this.#look(), tokensIntervalMs).unref();
  }

  /** Waits for no database: where it cannot be reached, the tokens are unread until it can. */
  static async open(options: PostgresTokensOptions): Promise<PostgresTokens> {
    const tokens = new PostgresTokens(await openConnections(options), options);
    await tokens.reload();
    return tokens;
  }

  get book(): TokenBook {
    return this.#book;
  }

  get configured(): boolean {
    return this.#configured;
  }

  async reload(): Promise<void> {
    await this.#reading;
    await this.#look({ always: true });
  }

  /** One look at a time; never rejects. */
  #look(options: { readonly always?: boolean } = {}): Promise<void> {
    this.#reading ??= this.#read(options.always ?? false)
      .then(
        () => {
          this.#hasProblem = false;
        },
        (error: unknown) => {
          if (!this.#hasProblem) this.#options.onProblem(error);
          this.#hasProblem = true;
        },
      )
      .finally(() => {
        this.#reading = undefined;
      });
    return this.#reading;
  }

  async #read(always: boolean): Promise<void> {
    const { schema } = this.#connections;
    const mustRead = always || this.#book.unread || this.#hasProblem;
    if (!mustRead && (await this.#seen(schema))) return;
    await this.#connections.prepare();
    const kept = await this.#connections.transaction(
      async (session) => readTokens(session, schema),
      snapshot,
    );
    if (kept.changeNumber === undefined && this.#options.folderHasTokens) await this.#closeToAll(schema);
    // A state that is lost too, under a server that knows better.
    const isLost = kept.lost || (kept.changeNumber === undefined && this.#book.size > 0);
    if (isLost && this.#book.size > 0) throw lostTokens();
    this.#changeNumber = kept.changeNumber;
    this.#configured =
      kept.changeNumber !== undefined ||
      kept.tokens.length > 0 ||
      this.#options.folderHasTokens ||
      (!this.#book.unread && this.#configured);
    this.#book = new TokenBook(kept.tokens, { lost: isLost });
    if (isLost) throw lostTokens();
  }

  async #seen(schema: string): Promise<boolean> {
    const [state] = await this.#connections.run<{ change_number: number }>(
      { name: 'filetracker_tokens_seen', text: `SELECT change_number FROM ${schema}.token_state` },
      [],
    );
    return state?.change_number === this.#changeNumber;
  }

  /** A server whose folder has tokens was closed before: all servers of the database are then. */
  async #closeToAll(schema: string): Promise<void> {
    await this.#connections.run(
      {
        name: 'filetracker_close_to_all',
        text: `INSERT INTO ${schema}.token_state DEFAULT VALUES ON CONFLICT DO NOTHING`,
      },
      [],
    );
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#reading;
    await this.#connections.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
