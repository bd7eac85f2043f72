import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';

/** Outgoing connections take ports from 32,768 on; below, nobody begins to listen by chance. */
const lowestPort = 10_000;
const portsEnd = 32_000;

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  const listens = await new Promise<boolean>((resolve) => {
    server.once('error', () => resolve(false));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => resolve(true));
  });
  if (listens) await new Promise((resolve) => server.close(resolve));
  return listens;
}

/** A port at which, as at the `span` ports above it, nobody listened a moment ago. */
export async function freePort(span: number): Promise<number> {
  for (;;) {
    const lowest = randomInt(lowestPort, portsEnd - span);
    let free = true;
    for (let port = lowest; free && port <= lowest + span; port += 1) free = await isFree(port);
    if (free) return lowest;
  }
}
