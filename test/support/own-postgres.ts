import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { inject, onTestFinished } from 'vitest';
import { randomBytes } from 'node:crypto';
import { freePort } from './free-port.ts';

const run = promisify(execFile);

/** A PostgreSQL of one test, that may be killed and started again. */
export interface OwnPostgres {
  readonly url: string;
  kill(): Promise<void>;
  start(): Promise<void>;
}

export async function ownPostgres(): Promise<OwnPostgres> {
  const folder = join(inject('enginesFolder'), `own-${randomBytes(4).toString('hex')}`);
  const port = String(await freePort(1));
  const script = join(import.meta.dirname, '../../scripts/engines/postgres.sh');
  // Acknowledged changes must outlive a kill: fsync stays on.
  const call = async (action: string): Promise<string> => {
    const environment = { ...process.env, DURABLE: '1', SHARED_BUFFERS: '16MB' };
    return (await run('bash', [script, action, folder, port], { env: environment })).stdout.trim();
  };
  onTestFinished(async () => {
    await call('stop');
  });
  return {
    url: await call('start'),
    kill: async () => void (await call('kill')),
    start: async () => void (await call('start')),
  };
}
