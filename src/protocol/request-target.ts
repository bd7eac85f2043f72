import { cannot } from '../core/errors.ts';
import { parseFileName, type FileName } from '../core/file-name.ts';
import { isEndpoint, type Endpoint } from './endpoints.ts';

/** The endpoint and the parameters in a request's target. `query` is the part after the `?`, still encoded. */
export type Route =
  | { readonly endpoint: 'files'; readonly name: FileName; readonly query: string }
  /** The directory ends in a slash: `/` or `/a/b/`. */
  | { readonly endpoint: 'list'; readonly directory: string; readonly query: string }
  | { readonly endpoint: 'admin'; readonly action: 'verify'; readonly query: string }
  | { readonly endpoint: Exclude<Endpoint, 'files' | 'list' | 'admin'>; readonly query: string };

const slash = 0x2f;
const notAscii = /[\u0080-\uffff]/;
const dotSegment = /^(?:\.|%2e){1,2}$/i;

function refusePath(state: string): never {
  throw cannot('invalid-name', 'use the path of the request', state);
}

/**
 * Decodes a percent-encoded path. @throws FiletrackerError `invalid-name` if it is not ASCII, or its escapes are not
 * UTF-8.
 */
function decodePath(raw: string): string {
  if (notAscii.test(raw)) refusePath('letters beyond ASCII must be percent-encoded UTF-8');
  if (!raw.includes('%')) return raw;
  try {
    return decodeURIComponent(raw);
  } catch {
    return refusePath('it is not percent-encoded UTF-8');
  }
}

/** The index of the last slash of the run at `start`. */
function lastLeadingSlash(path: string, start: number): number {
  let at = start;
  while (path.charCodeAt(at + 1) === slash) at += 1;
  return at;
}

/** The path of an absolute target (`http://host/path`), which every server must accept (RFC 9112, 3.2.2). */
function pathOfAbsolute(target: string): string {
  const afterScheme = /^https?:\/\//i.exec(target)?.[0].length;
  if (afterScheme === undefined) return refusePath('it must begin with "/"');
  const rest = target.slice(afterScheme);
  const authoritySize = rest.search(/[/?#]/);
  const path = authoritySize === -1 ? '' : rest.slice(authoritySize);
  return path === '' || path.startsWith('/') ? path : refusePath('it must begin with "/"');
}

function directoryOf(raw: string): string {
  const path = decodePath(raw);
  if (path === '' || path === '/') return '/';
  return path.endsWith('/') ? `${parseFileName(path.slice(0, -1))}/` : `${parseFileName(path)}/`;
}

/** An unknown endpoint is a 404, but a path that could deceive a filter of a proxy is an error. */
function unknownRoute(path: string): undefined {
  for (const segment of path.slice(1).split('/')) {
    if (dotSegment.test(segment)) refusePath('it holds a "." or ".." segment');
  }
  return undefined;
}

/**
 * Reads the target of a request line. Leading empty segments are dropped, before and after the base path, because a
 * client's base URL may end in a slash, except at endpoints that only people and programs behind the proxy use. The
 * endpoint's own word must not be encoded: a proxy that filters by path must see the same word as the server.
 * @param basePath prefix of every path, such as `/ft`; empty by default.
 * @returns `undefined` if no endpoint has this path.
 * @throws FiletrackerError `invalid-name` for every path that the protocol refuses with 400.
 */
export function parseTarget(target: string, basePath = ''): Route | undefined {
  const whole = target.charCodeAt(0) === slash ? target : pathOfAbsolute(target);
  if (whole.includes('#')) refusePath('"#" must be encoded as "%23"');
  const mark = whole.indexOf('?');
  const path = mark === -1 ? whole : whole.slice(0, mark);
  const query = mark === -1 ? '' : whole.slice(mark + 1);

  let start = lastLeadingSlash(path, 0);
  if (basePath !== '') {
    if (!path.startsWith(basePath, start)) return unknownRoute(path);
    start += basePath.length;
    if (path.charCodeAt(start) !== slash) return unknownRoute(path);
    start = lastLeadingSlash(path, start);
  }
  const next = path.indexOf('/', start + 1);
  const end = next === -1 ? path.length : next;
  const endpoint = path.slice(start + 1, end);
  if (!isEndpoint(endpoint)) return unknownRoute(path);
  const rest = path.slice(end);
  if (endpoint === 'files') return { endpoint, name: parseFileName(decodePath(rest)), query };
  if (endpoint === 'list') return { endpoint, directory: directoryOf(rest), query };
  if (endpoint === 'version') return rest === '' || rest === '/' ? { endpoint, query } : unknownRoute(path);
  // Exactly this path, because a proxy protects it by a rule for this text.
  if (endpoint === 'admin') {
    return path === `${basePath}/admin/verify` ? { endpoint, action: 'verify', query } : unknownRoute(path);
  }
  return path === `${basePath}/${endpoint}` ? { endpoint, query } : unknownRoute(path);
}

/** A target as it is logged: without the user and the password that an absolute one may contain. */
export function withoutUserInfo(target: string): string {
  if (target.charCodeAt(0) === slash && target.charCodeAt(1) !== slash) return target;
  const start = /^(?:[a-z][a-z\d+.-]{0,20}:)?\/\//i.exec(target)?.[0].length ?? 0;
  const size = target.slice(start).search(/[/?#]/);
  const end = size === -1 ? target.length : start + size;
  const at = target.lastIndexOf('@', end);
  return at < start ? target : `${target.slice(0, start)}…${target.slice(at)}`;
}

const plainPath = /^[\w./~-]*$/;

/** A name as the path of a URL: percent-encoded UTF-8, with its slashes. */
export function encodeName(name: string): string {
  if (plainPath.test(name)) return name;
  return name.split('/').map(encodeURIComponent).join('/');
}

/** The path of a file, below the base URL. */
export function filePath(name: FileName): string {
  return `/files${encodeName(name)}`;
}

/** The path of a list, below the base URL. @param directory ends in a slash: `/` or `/a/b/`. */
export function listPath(directory: string): string {
  return `/list${encodeName(directory)}`;
}
