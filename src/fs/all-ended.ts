/**
 * As `Promise.all`, but a rejection waits until all have ended. For calls to the disk that must not be under way any
 * more when their caller goes on: `Promise.all` rejects with the first failure and leaves the others running.
 */
export async function allEnded<Value>(promises: readonly Promise<Value>[]): Promise<Value[]> {
  await Promise.allSettled(promises);
  return Promise.all(promises);
}
