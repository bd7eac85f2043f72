import { randomBytes } from 'node:crypto';
import { Client } from 'pg';
import { inject } from 'vitest';
import { s3Credentials, testBucket } from './engine-names.ts';

// The engines that scale-out tests run against; started once a run by engines-setup.ts.

declare module 'vitest' {
  export interface ProvidedContext {
    /** Empty where the engine is not installed. */
    postgresUrl: string;
    s3Endpoint: string;
    /** Folder of the throwaway PostgreSQL, for tests that restart one of their own. */
    enginesFolder: string;
  }
}

export function postgresUrl(): string {
  return inject('postgresUrl');
}

export function s3Endpoint(): string {
  return inject('s3Endpoint');
}

/** A schema of the running test alone, and how to be rid of it. */
export function freshSchema(): { readonly schema: string; readonly drop: () => Promise<void> } {
  const schema = `test_${randomBytes(8).toString('hex')}`;
  const drop = async (): Promise<void> => {
    const client = new Client({ connectionString: postgresUrl() });
    await client.connect();
    await client.query(`DROP SCHEMA IF EXISTS ${schema} CASCADE`);
    await client.end();
  };
  return { schema, drop };
}

/** A place in the tests' bucket that the running test has for itself; it goes with the engine. */
export function freshBucket(): {
  readonly bucket: string;
  readonly prefix: string;
  readonly endpoint: string;
  readonly credentials: typeof s3Credentials;
} {
  const prefix = `${randomBytes(8).toString('hex')}/`;
  return { bucket: testBucket, endpoint: s3Endpoint(), credentials: s3Credentials, prefix };
}
