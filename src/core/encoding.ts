/** How the bytes of a blob lie in the store, and how a body travels. */
export type Encoding = 'identity' | 'gzip';

export const encodings: readonly Encoding[] = ['identity', 'gzip'];
