import { open } from 'node:fs/promises';
import { join } from 'node:path';

const socketFileName = 'leader.sock';
/** The system takes 107 bytes. */
const pathSizeMaxBytes = 104;

export interface SocketPath extends AsyncDisposable {
  readonly path: string;
}

/**
 * The path at which the processes of a store meet, in the folder of its journal, so that who can reach it can reach
 * the store. Where it is too long for the system it goes by a descriptor of the folder, which is kept open.
 */
export async function socketPathIn(folder: string): Promise<SocketPath> {
  const path = join(folder, socketFileName);
  if (Buffer.byteLength(path) <= pathSizeMaxBytes) {
    return { path, [Symbol.asyncDispose]: async () => undefined };
  }
  const handle = await open(folder, 'r');
  const short = `/proc/self/fd/${handle.fd}/${socketFileName}`;
  return { path: short, [Symbol.asyncDispose]: () => handle.close() };
}
