import { setTimeout as delay } from 'node:timers/promises';
import { applied, contentOf, drawContent, type NameState } from './history.ts';
import { listedFiles, versionOf, type HttpAnswer, type HttpStore, type ListedFile } from './http-store.ts';
import { fits, NameStates, type FoundFile } from './name-states.ts';
import type { Random } from './random.ts';

export type LoadRequest = 'PUT' | 'DELETE' | 'GET' | 'HEAD' | 'list';

export interface LoadOptions {
  readonly clients?: number;
  /** Files in each of the two folders of a client. */
  readonly files?: number;
  /** Part of the requests that read: of 20 of them 16 are GET, 3 HEAD and one a list of a folder. */
  readonly reads?: number;
}

export interface RunOptions {
  /** Between an answer and the next request of a client. */
  readonly pauseMs?: number;
  /** Or: all clients together make so many requests a second, as long as answers come in time. */
  readonly requestsPerSecond?: number;
}

/** A client that is so far behind its rate begins anew instead of hurrying after it. */
const behindMaxMs = 1000;

/**
 * Answers with other words have changed nothing or may have: what stands under the name is open. The list of a folder
 * without files is a 400.
 */
function isAcknowledged(status: number, request: LoadRequest): boolean {
  return status === 200 || status === (request === 'list' ? 400 : 404);
}

/** What a GET or a HEAD tells of a file. */
function foundBy(method: 'GET' | 'HEAD', answer: HttpAnswer): FoundFile | undefined {
  if (answer.status === 404) return undefined;
  const digest = String(answer.headers['sha256-checksum']);
  return { version: versionOf(answer), digest, ...(method === 'GET' && { body: answer.body }) };
}

/**
 * Clients that change and read files through a server and know what may stand under each name.
 *
 * Invariant: a name is changed by one client only, one request at a time; `#states` holds all that may stand under it
 * after what was acknowledged, and what was asked for without an answer. Any client reads any name.
 */
export class ServerLoad {
  readonly #store: HttpStore;
  readonly #random: Random;
  readonly #states = new NameStates();
  readonly #clients: number;
  readonly #files: number;
  readonly #reads: number;
  #nextVersion = 1;
  /** Changes that were answered with 200 or 404. */
  acknowledged = 0;
  /** Reads whose answers were compared with what may be there. */
  checked = 0;
  /** How often each other status came. */
  readonly refusals = new Map<number, number>();
  /** The text of the first answer of each such status. */
  readonly refusalTexts = new Map<number, string>();
  /** Told how long each answer took. */
  onAnswer: (tookMs: number, request: LoadRequest) => void = () => undefined;

  constructor(store: HttpStore, random: Random, options: LoadOptions = {}) {
    this.#store = store;
    this.#random = random;
    this.#clients = options.clients ?? 6;
    this.#files = options.files ?? 6;
    this.#reads = options.reads ?? 0;
  }

  /**
   * Makes requests until told to stop, or until the server is gone; then at most one request a client is open.
   * @throws Error that says which answer to a read was wrong.
   */
  async run(signal: AbortSignal, options: RunOptions = {}): Promise<void> {
    const { pauseMs, requestsPerSecond } = options;
    const intervalMs = requestsPerSecond === undefined ? 0 : (1000 * this.#clients) / requestsPerSecond;
    await Promise.all(
      Array.from({ length: this.#clients }, async (_, client) => {
        let dueMs = performance.now() + this.#random.fraction() * intervalMs;
        while (!signal.aborted) {
          const waitMs = pauseMs ?? dueMs - performance.now();
          if (waitMs > 0) await delay(waitMs);
          if (waitMs < -behindMaxMs) dueMs -= waitMs;
          dueMs += intervalMs;
          const alive = await this.#request(client);
          if (!alive) return;
        }
      }),
    );
  }

  #drawName(client: number): string {
    return `/c${client}/d${this.#random.below(2)}/f${this.#random.below(this.#files)}`;
  }

  /** False where no answer came. */
  async #request(client: number): Promise<boolean> {
    const random = this.#random;
    if (!random.chance(this.#reads)) return this.#change(this.#drawName(client));
    const reader = random.below(this.#clients);
    const kind = random.below(20);
    if (kind === 0) return this.#list(`/c${reader}/d${random.below(2)}`);
    return this.#read(kind < 4 ? 'HEAD' : 'GET', this.#drawName(reader));
  }

  /** The answer, or undefined where none came or one that says nothing of the files. */
  async #answered(
    request: LoadRequest,
    asked: Promise<HttpAnswer>,
  ): Promise<{ readonly alive: boolean; readonly answer?: HttpAnswer }> {
    const startMs = performance.now();
    try {
      const answer = await asked;
      this.onAnswer(performance.now() - startMs, request);
      if (isAcknowledged(answer.status, request)) return { alive: true, answer };
      this.refusals.set(answer.status, (this.refusals.get(answer.status) ?? 0) + 1);
      this.refusalTexts.set(answer.status, `${answer.status} ${answer.body.toString()}`);
      return { alive: true };
    } catch {
      return { alive: false };
    }
  }

  async #change(name: string): Promise<boolean> {
    const random = this.#random;
    const next = this.#nextVersion++;
    const version = random.chance(0.15) ? random.below(next) : next;
    const put = random.chance(0.75);
    const content = put ? drawContent(random) : '';
    const before = this.#states.of(name);
    const change = { kind: put ? 'put' : 'remove', version, content } as const;
    const after = new Set([...before].map((state) => applied(state, change)));
    this.#states.set(name, new Set([...before, ...after]));
    const asked = put
      ? this.#store.put(name, version, contentOf(content), random.chance(0.5))
      : this.#store.remove(name, version);
    const { alive, answer } = await this.#answered(put ? 'PUT' : 'DELETE', asked);
    if (answer !== undefined) {
      this.acknowledged += 1;
      this.#states.set(name, after);
    }
    return alive;
  }

  async #read(method: 'GET' | 'HEAD', name: string): Promise<boolean> {
    const watch = this.#states.watch(name);
    const { alive, answer } = await this.#answered(method, this.#store.request(method, `/files${name}`));
    watch.end();
    if (answer !== undefined) this.#compare(method, name, watch.states, foundBy(method, answer));
    return alive;
  }

  async #list(folder: string): Promise<boolean> {
    const names = Array.from({ length: this.#files }, (_, file) => `${folder}/f${file}`);
    const watches = names.map((name) => ({ name, watch: this.#states.watch(name) }));
    const { alive, answer } = await this.#answered('list', this.#store.requestList(`${folder}/`));
    for (const { watch } of watches) watch.end();
    if (answer === undefined) return alive;
    const listed = answer.status === 200 ? listedFiles(answer) : [];
    const found = new Map(listed.map((file) => [file.name, file]));
    for (const { name, watch } of watches) this.#compare('list', name, watch.states, found.get(name));
    if (listed.some(({ name }) => !names.includes(name)) || listed.length > found.size) {
      throw new Error(`the list of ${folder} has names too many: ${answer.body.toString()}`);
    }
    return alive;
  }

  /** @throws Error where what is found is none of what may be there. */
  #compare(
    request: string,
    name: string,
    states: ReadonlySet<NameState>,
    found: FoundFile | undefined,
  ): void {
    this.checked += 1;
    if ([...states].some((state) => fits(state, found))) return;
    const told = found && { version: found.version, digest: found.digest, sizeBytes: found.body?.length };
    throw new Error(
      `${request} of ${name} gives ${JSON.stringify(told) ?? 'nothing'}, and may give ${[...states].join(' or ')}`,
    );
  }

  /**
   * Reads everything and compares; what is found is what is known from then on.
   * @throws Error that says what is missing, or there and should not be.
   */
  async check(): Promise<void> {
    const listed = new Map((await answered(() => this.#store.list())).map((file) => [file.name, file]));
    for (const name of this.#states.names) {
      const states = this.#states.of(name);
      const found = listed.get(name);
      const state = [...states].find((possible) => fits(possible, found));
      if (state === undefined) {
        throw new Error(
          `${name} is ${JSON.stringify(found) ?? 'absent'}, and may be ${[...states].join(' or ')}`,
        );
      }
      if (found !== undefined) await this.#checkContent(name, found);
      this.#states.set(name, new Set([state]));
      listed.delete(name);
    }
    if (listed.size > 0) throw new Error(`${[...listed.keys()].join(', ')} is there and was not asked for`);
  }

  async #checkContent(name: string, { version }: ListedFile): Promise<void> {
    const answer = await answered(() => this.#store.get(name));
    const { status, body } = answer;
    const states = [...this.#states.of(name)];
    if (status === 200 && states.some((state) => fits(state, { version, body }))) return;
    const found = foundBy('GET', answer);
    const told = found && { version: found.version, digest: found.digest, sizeBytes: found.body?.length };
    throw new Error(
      `${name}, listed in version ${version}, answers ${status} with ${JSON.stringify(told) ?? 'nothing'}, ` +
        `and may be ${states.join(' or ')}`,
    );
  }
}

/** How long a request is repeated: a worker that ends is replaced well before, on the slowest machine too. */
const repeatMaxMs = 60_000;

/** Repeats a request whose worker ended, as one does whose index has failed for good. */
async function answered<Answer>(request: () => Promise<Answer>): Promise<Answer> {
  const endMs = performance.now() + repeatMaxMs;
  for (let pauseMs = 100; ; pauseMs += 100) {
    try {
      return await request();
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : undefined;
      const isLost = code === 'ECONNRESET' || code === 'EPIPE' || code === 'ECONNREFUSED';
      if (!isLost || performance.now() > endMs) throw error;
      await delay(pauseMs);
    }
  }
}
