import { Connections, type Session } from '../catalog/postgres/connections.ts';
import { migration } from '../catalog/postgres/migrate.ts';
import type { ConnectionOptions } from '../catalog/postgres/pools.ts';
import type { Clock } from '../core/clock.ts';
import { SingleFlight } from '../core/concurrency.ts';
import { cannot, type FiletrackerError } from '../core/errors.ts';
import { TokenBook } from './token-book.ts';
import { checkNameIsNew, isToken, makeToken, noSuchToken, type NewToken, type Token } from './token.ts';
import { tokensIntervalMs, type TokenEditor, type TokenSource } from './token-source.ts';

const snapshot = { begin: 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY' };
/** Distinguishes this lock from the other locks of the schema. */
const lockNumber = 7343;

/** The tokens of a database at one moment. */
interface KeptTokens {
  /** `undefined` if the store never had a token. */
  readonly changeNumber: number | undefined;
  readonly tokens: readonly Token[];
  /** Whether tokens are missing that no program removed. */
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
  throw cannot('corrupt-store', 'read the table "token"', `"${row.name}" is not a token`);
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
  const state = 'its tokens are gone, and this store has had some, so it is closed to all clients';
  return cannot('corrupt-store', 'read the table "token"', `${state}; restore them or add tokens`);
}

/** Edits the tokens in a database, which all its servers share. */
export class PostgresTokenEditor implements TokenEditor {
  readonly #connections: Connections;
  readonly #clock: Clock;

  private constructor(connections: Connections, clock: Clock) {
    this.#connections = connections;
    this.#clock = clock;
  }

  /**
   * @param options.create whether missing tables are created.
   * @throws FiletrackerError `unavailable` if the database cannot be reached, `not-found` if it has no store.
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
    const { name, id, secretHash, prefixes, createdAtMs, expiresAtMs } = token;
    await this.#change(async (session, schema) => {
      checkNameIsNew(name, (await readTokens(session, schema)).tokens);
      await session.run(
        `INSERT INTO ${schema}.token (name, id, secret_hash, prefixes, rights, created_ms, expires_ms)
          VALUES ($1, $2, $3, $4, $5, $6, $7)`,
        [name, id, secretHash, prefixes, token.rights, createdAtMs, expiresAtMs ?? null],
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
      // The trigger on the change has created the row.
      await session.run(`UPDATE ${schema}.token_state SET tokens = (SELECT count(*) FROM ${schema}.token)`);
    });
  }

  async close(): Promise<void> {
    await this.#connections.close();
  }
}

export interface PostgresTokensOptions extends ConnectionOptions {
  /** Whether the server's folder has tokens, which the server does not use. */
  readonly folderHasTokens: boolean;
  /** Called once whenever the tokens become unreadable. */
  readonly onProblem: (error: unknown) => void;
}

/**
 * The tokens in a database, for a process that serves it. It checks for changes twice a second.
 *
 * Invariant: `book` has the tokens that were last read whole; until the first read every client must retry. `configured`
 * never becomes false: an unreadable database does not open a store.
 */
export class PostgresTokens implements TokenSource {
  readonly #connections: Connections;
  readonly #options: PostgresTokensOptions;
  readonly #timer: NodeJS.Timeout;
  #book = new TokenBook([], { unread: true });
  #configured = true;
  #changeNumber: number | undefined;
  #hasProblem = false;
  readonly #reading = new SingleFlight<void>();

  private constructor(connections: Connections, options: PostgresTokensOptions) {
    this.#connections = connections;
    this.#options = options;
    this.#timer = setInterval(() => void this.#look(), tokensIntervalMs).unref();
  }

  /** Does not wait for the database: the tokens are unread until it can be reached. */
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
    await this.#reading.running;
    await this.#look({ always: true });
  }

  /** One read at a time; never rejects. */
  #look(options: { readonly always?: boolean } = {}): Promise<void> {
    return this.#reading.run(async () => {
      try {
        await this.#read(options.always ?? false);
        this.#hasProblem = false;
      } catch (error) {
        if (!this.#hasProblem) this.#options.onProblem(error);
        this.#hasProblem = true;
      }
    });
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
    // The state may be lost too, while this server still knows its tokens.
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

  /** A server whose folder has tokens was closed before, so all servers of the database are closed. */
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
    await this.#reading.running;
    await this.#connections.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
