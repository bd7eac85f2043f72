import { CreateBucketCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { chmod } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { freePort, projectRoot } from './processes.ts';

const run = promisify(execFile);
export const credentials = { accessKeyId: 'filetracker', secretAccessKey: 'filetracker-secret' } as const;
export const bucket = 'filetracker-bench';

/** The engines of the scale-out store, throwaway ones that keep what they are told to keep: fsync is on. */
export interface Engines extends AsyncDisposable {
  readonly postgresUrl: string;
  readonly s3Endpoint: string;
  /** Process numbers by engine; children belong to them. */
  readonly roots: Readonly<Record<'PostgreSQL' | 'S3', readonly number[]>>;
}

export async function startEngines(folder: string): Promise<Engines> {
  await chmod(folder, 0o755);
  const script = async (name: string, ...words: string[]): Promise<string> => {
    const environment = { ...process.env, DURABLE: '1', SHARED_BUFFERS: '512MB' };
    const path = join(projectRoot, 'scripts/engines', `${name}.sh`);
    return (await run('bash', [path, ...words], { env: environment, timeout: 120_000 })).stdout.trim();
  };
  const postgres = join(folder, 'postgres');
  const ceph = join(folder, 'ceph');
  const postgresUrl = await script('postgres', 'start', postgres, String(await freePort()));
  const cephPort = 10_000 + ((await freePort()) % 20_000);
  const s3Endpoint = await script('ceph', 'start', ceph, String(cephPort));
  const client = new S3Client({
    endpoint: s3Endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials,
  });
  await client.send(new CreateBucketCommand({ Bucket: bucket }));
  await client.send(new PutObjectCommand({ Bucket: bucket, Key: 'first', Body: 'first' }));
  client.destroy();
  const pidIn = (path: string): number => Number(readFileSync(path, 'utf8').split('\n')[0]);
  return {
    postgresUrl,
    s3Endpoint,
    roots: {
      PostgreSQL: [pidIn(join(postgres, 'data/postmaster.pid'))],
      S3: ['mon', 'osd', 'rgw'].map((name) => pidIn(join(ceph, `${name}.pid`))),
    },
    [Symbol.asyncDispose]: async () => {
      await script('postgres', 'stop', postgres);
      await script('ceph', 'stop', ceph);
    },
  };
}

/** Processor time of a tick, as Linux counts it. */
const tickMs = 10;

/** Processor time in milliseconds that processes and all below them have taken, those that ended included. */
export function processorMs(roots: readonly number[]): number {
  const stats = new Map<number, { parent: number; ticks: number }>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const text = readFileSync(`/proc/${name}/stat`, 'utf8');
      const fields = text
        .slice(text.lastIndexOf(')') + 2)
        .split(' ')
        .map(Number);
      const ticks = [11, 12, 13, 14].reduce((sum, at) => sum + (fields[at] ?? 0), 0);
      stats.set(Number(name), { parent: fields[1] ?? 0, ticks });
    } catch {
      // It has ended since the folder was read.
    }
  }
  const belongs = (pid: number): boolean => {
    for (let at = pid; at > 1; at = stats.get(at)?.parent ?? 0) if (roots.includes(at)) return true;
    return false;
  };
  let ticks = 0;
  for (const [pid, stat] of stats) if (belongs(pid)) ticks += stat.ticks;
  return ticks * tickMs;
}
