/** Versions of the protocol that a server of ours speaks, as GET /version gives them. */
export const protocolVersions: readonly number[] = [2];

/** What this server can do beyond version 2, as GET /version names it, so that a client need not try. */
export const features: readonly string[] = [
  'chunked-upload',
  'conditional',
  'expect-continue',
  'list-json',
  'list-pages',
  'problem-json',
  'range',
];

export type Endpoint = 'files' | 'list' | 'version' | 'status' | 'healthz' | 'readyz' | 'metrics' | 'admin';

const readingMethods = ['GET', 'HEAD'] as const;

/** The methods that each endpoint takes, as the `Allow` header of a 405 names them. */
export const endpointMethods: Readonly<Record<Endpoint, readonly string[]>> = {
  files: ['GET', 'HEAD', 'PUT', 'DELETE'],
  list: readingMethods,
  version: readingMethods,
  status: readingMethods,
  healthz: readingMethods,
  readyz: readingMethods,
  metrics: readingMethods,
  admin: ['POST'],
};

export function isEndpoint(segment: string): segment is Endpoint {
  return Object.hasOwn(endpointMethods, segment);
}

/** What GET /version answers; further members may follow. */
export interface VersionAnswer {
  readonly protocol_versions: readonly number[];
  readonly server?: string;
  readonly features?: readonly string[];
}

export const textType = 'text/plain; charset=utf-8';
export const jsonType = 'application/json';
export const problemType = 'application/problem+json';
export const listJsonType = 'application/x-ndjson';
export const fileType = 'application/octet-stream';
