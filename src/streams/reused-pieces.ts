import type { Readable } from 'node:stream';

/** A stream whose pieces, as objects, may be given back to it: it then writes to them again. */
export interface ReusingSource extends Readable {
  /** The caller, and whoever he gave the piece to, is done with it. */
  giveBack(piece: Uint8Array): void;
}

function reuses(source: Readable): source is ReusingSource {
  return 'giveBack' in source && typeof source.giveBack === 'function';
}

/** Gives a piece back where its source has a use for it; where it has none, it stays as it is. */
export function giveBack(source: Readable, piece: Uint8Array): void {
  if (reuses(source)) source.giveBack(piece);
}
