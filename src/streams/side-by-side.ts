/** Runs `work` on each item, at most `limit` at once. The first failure ends it, after the work in progress. */
export async function sideBySide<Item>(
  items: AsyncIterable<Item> | Iterable<Item>,
  limit: number,
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const failures: unknown[] = [];
  const running = new Set<Promise<void>>();
  let wake = (): void => undefined;
  // One waiter, not a race of all tasks: each race would stay in memory as long as the slowest of them.
  const change = (): Promise<void> => new Promise((resolve) => (wake = resolve));
  async function run(item: Item): Promise<void> {
    try {
      await work(item);
    } catch (error) {
      failures.push(error);
    }
  }
  try {
    for await (const item of items) {
      const task = run(item).then(() => {
        running.delete(task);
        wake();
      });
      running.add(task);
      while (running.size >= limit) await change();
      if (failures.length > 0) break;
    }
  } finally {
    await Promise.all(running);
  }
  if (failures.length > 0) throw failures[0];
}

/** The items of batches, one by one. */
export async function* flattened<Item>(
  batches: AsyncIterable<readonly Item[]>,
): AsyncGenerator<Item, void, void> {
  for await (const batch of batches) yield* batch;
}

/** Items collected into batches of `size`; the last may be smaller. */
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
