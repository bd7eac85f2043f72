/** Does something with each item, at most `limit` at a time; the first failure ends it, after what is under way. */
export async function sideBySide<Item>(
  items: AsyncIterable<Item> | Iterable<Item>,
  limit: number,
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const tasks = new Tasks(limit);
  try {
    for await (const item of items) {
      await tasks.begin(() => work(item));
      if (tasks.failed) break;
    }
  } finally {
    await tasks.idle();
  }
  tasks.throwFailure();
}

/** Tasks under way, in bounded number. One waits at a time. */
class Tasks {
  readonly #limit: number;
  #running = 0;
  #failure: { readonly error: unknown } | undefined;
  #wake: (() => void) | undefined;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get failed(): boolean {
    return this.#failure !== undefined;
  }

  /** Begins a task and waits until there is room for another. */
  async begin(task: () => Promise<void>): Promise<void> {
    this.#running += 1;
    void this.#run(task);
    while (this.#running >= this.#limit) await this.#change();
  }

  async idle(): Promise<void> {
    while (this.#running > 0) await this.#change();
  }

  throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async #run(task: () => Promise<void>): Promise<void> {
    try {
      await task();
    } catch (error) {
      this.#failure ??= { error };
    } finally {
      this.#running -= 1;
      this.#wake?.();
    }
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}

/** The items of batches, one by one. */
export async function* flattened<Item>(
  batches: AsyncIterable<readonly Item[]>,
): AsyncGenerator<Item, void, void> {
  for await (const batch of batches) yield* batch;
}

/** Items gathered into batches of `size`; the last may be smaller. */
export async function* inBatches<Item>(
  items: AsyncIterable<Item> | Iterable<Item>,
  size: number,
): AsyncGenerator<readonly Item[], void, void> {
  let batch: Item[] = [];
  for await (const item of items) {
    batch.push(item);
    if (batch.length < size) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}
