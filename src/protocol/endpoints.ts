/** The protocol versions of this server, as GET /version lists them. */
export const protocolVersions: readonly number[] = [2];

/** Capabilities beyond version 2, as GET /version names them, so that a client need not try. */
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

/** The methods of each endpoint, as the `Allow` header of a 405 lists them. */
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

/** The response of GET /version; further members may follow. */
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
