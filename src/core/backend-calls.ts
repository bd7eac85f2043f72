/**
 * Is told of every call of a program that the store rests on (a database, an object store) when it has ended: what
 * it was for, how long it took, with waiting for a connection and retries, and why it failed, in a word, if it did.
 * The operations are few and fixed. Must not throw.
 */
export type CallObserver = (operation: string, durationMs: number, failure: string | undefined) => void;
