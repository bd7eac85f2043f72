import { S3BlobStore } from '../../src/blobs/s3/s3-blob-store.ts';
import { PostgresCatalog } from '../../src/catalog/postgres/postgres-catalog.ts';
import { s3Credentials } from './engine-names.ts';
import { freshBucket, freshSchema, postgresUrl } from './engines.ts';
import { Program } from './program.ts';
import { childrenOf } from './proof/child-program.ts';
import { temporaryFolder } from './temporary-folder.ts';
import { onTestFinished } from 'vitest';

/** A place in PostgreSQL and S3 that a test's servers share, and what lies there. */
export interface SharedPlace {
  readonly catalogUrl: string;
  readonly catalog: PostgresCatalog;
  readonly blobs: S3BlobStore;
  readonly bucket: ReturnType<typeof freshBucket>;
  /** Flags and environment of a server that serves it; engines may be reached through other addresses. */
  server(options?: {
    catalogUrl?: string;
    s3Endpoint?: string;
    args?: readonly string[];
  }): Promise<RunningServer>;
}

export interface RunningServer {
  readonly program: Program;
  readonly port: number;
  /** Ends the server at once with all of its processes: a worker whose supervisor alone is gone ends in good order. */
  kill(): void;
}

export async function sharedPlace(url = postgresUrl()): Promise<SharedPlace> {
  const { schema, drop } = freshSchema();
  const bucket = freshBucket();
  const blobs = await S3BlobStore.open(bucket);
  const catalog = await PostgresCatalog.open({ url, schema, placer: blobs });
  onTestFinished(async () => {
    await catalog.close();
    await blobs.close();
    if (url === postgresUrl()) await drop();
  });
  const withSchema = (address: string): string => `${address}?schema=${schema}`;
  return {
    catalogUrl: withSchema(url),
    catalog,
    blobs,
    bucket,
    server: async (options = {}) => {
      const folder = await temporaryFolder();
      const program = new Program('filetracker-server', {
        args: [
          '-d',
          folder,
          '-p',
          '0',
          '--workers',
          '1',
          '--log-level',
          'warn',
          '--catalog',
          withSchema(options.catalogUrl ?? url),
          '--blobs',
          `s3://${bucket.bucket}/${bucket.prefix}`,
          '--s3-endpoint',
          options.s3Endpoint ?? bucket.endpoint,
          ...(options.args ?? []),
        ],
        environment: {
          AWS_ACCESS_KEY_ID: s3Credentials.accessKeyId,
          AWS_SECRET_ACCESS_KEY: s3Credentials.secretAccessKey,
          NODE_NO_WARNINGS: '1',
        },
      });
      const [, port] = await program.printed(/listens on http:\/\/127\.0\.0\.1:(\d+)/);
      const kill = (): void => {
        // Looked up before: the children of who is dead are another's.
        for (const pid of [program.pid, ...childrenOf(program.pid)]) process.kill(pid, 'SIGKILL');
      };
      return { program, port: Number(port), kill };
    },
  };
}
