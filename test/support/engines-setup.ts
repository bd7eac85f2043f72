import { BucketAlreadyOwnedByYou, CreateBucketCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { execFile } from 'node:child_process';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { TestProject } from 'vitest/node';
import { otherS3Endpoint, s3Credentials, testBucket } from './engine-names.ts';
import { freePort } from './free-port.ts';
import { installedEngines } from './installed-engines.ts';

const run = promisify(execFile);

async function engine(name: 'postgres' | 'ceph', ...words: string[]): Promise<string> {
  const script = join(import.meta.dirname, '../../scripts/engines', `${name}.sh`);
  const { stdout } = await run('bash', [script, ...words], { timeout: 300_000 });
  return stdout.trim();
}

/** Makes the tests' bucket and a first object, which takes seconds, because the server sets itself up with it. */
async function warmUp(endpoint: string): Promise<void> {
  const client = new S3Client({
    endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: s3Credentials,
  });
  await client.send(new CreateBucketCommand({ Bucket: testBucket })).catch((error: unknown) => {
    // A server that outlives the run has it from the run before.
    if (!(error instanceof BucketAlreadyOwnedByYou)) throw error;
  });
  await client.send(new PutObjectCommand({ Bucket: testBucket, Key: 'first', Body: 'first' }));
  client.destroy();
}

/** Starts the engines that are installed, for all test files together; Vitest calls it. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), 'filetracker-engines-'));
  // PostgreSQL runs as another user than root, and must get to its own folder.
  await chmod(folder, 0o755);
  const installed = installedEngines();
  const postgres = join(folder, 'postgres');
  const ceph = join(folder, 'ceph');
  const stop = async (): Promise<void> => {
    await Promise.allSettled([engine('postgres', 'stop', postgres), engine('ceph', 'stop', ceph)]);
    await rm(folder, { recursive: true, force: true });
  };
  try {
    // One range for both, as neither listens yet when the other's is looked for; Ceph takes 20 above its own.
    const lowestPort = await freePort(21);
    const [postgresUrl, s3Endpoint] = await Promise.all([
      installed.postgres ? engine('postgres', 'start', postgres, String(lowestPort)) : '',
      installed.s3 && otherS3Endpoint === ''
        ? engine('ceph', 'start', ceph, String(lowestPort + 1))
        : otherS3Endpoint,
    ]);
    if (s3Endpoint !== '') await warmUp(s3Endpoint);
    project.provide('postgresUrl', postgresUrl);
    project.provide('s3Endpoint', s3Endpoint);
    project.provide('enginesFolder', folder);
  } catch (error) {
    await stop();
    throw error;
  }
  return stop;
}
