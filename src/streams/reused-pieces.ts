import type { Readable } from 'node:stream';

/** A stream of Buffers that can be given back to it: it then overwrites them. */
export interface ReusingSource extends Readable {
  /** Returns a piece that neither the caller nor any other receiver uses any more. */
  giveBack(piece: Uint8Array): void;
}

function reuses(source: Readable): source is ReusingSource {
  return 'giveBack' in source && typeof source.giveBack === 'function';
}

/** Gives a piece back if its source reuses pieces; otherwise does nothing. */
export function giveBack(source: Readable, piece: Uint8Array): void {
  if (reuses(source)) source.giveBack(piece);
}
