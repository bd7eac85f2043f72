import { cannot } from '../core/errors.ts';
import { parseFileName, type FileName } from '../core/file-name.ts';
import type { FileVersion } from '../core/file-version.ts';
import { formatDate, parseDate } from './dates.ts';

function decodeQuery(raw: string): string {
  const spaced = raw.includes('+') ? raw.replaceAll('+', ' ') : raw;
  if (!spaced.includes('%')) return spaced;
  try {
    return decodeURIComponent(spaced);
  } catch {
    throw cannot('invalid-argument', 'read the query of the request', 'it is not percent-encoded UTF-8');
  }
}

/**
 * The first value of a key, decoded as forms are (`+` is a blank); `undefined` if the key is missing. @throws
 * FiletrackerError `invalid-argument` if it is not percent-encoded UTF-8.
 */
export function queryValue(query: string, key: string): string | undefined {
  let start = 0;
  while (start < query.length) {
    const separator = query.indexOf('&', start);
    const end = separator === -1 ? query.length : separator;
    const part = query.slice(start, end);
    const equals = part.indexOf('=');
    const found = equals === -1 ? part : part.slice(0, equals);
    if (found === key || (found.includes('%') && decodeQuery(found) === key)) {
      return decodeQuery(part.slice(found.length + 1));
    }
    start = end + 1;
  }
  return undefined;
}

const versionKey = 'last_modified';

/** The version in a request; `undefined` if there is none. @throws FiletrackerError `invalid-version`. */
export function queryVersion(query: string): FileVersion | undefined {
  const text = queryValue(query, versionKey);
  return text === undefined ? undefined : parseDate(text);
}

/** The version in a PUT or DELETE, which is required. @throws FiletrackerError `invalid-version`. */
export function requiredVersion(query: string): FileVersion {
  const version = queryVersion(query);
  if (version !== undefined) return version;
  throw cannot(
    'invalid-version',
    'read the version of the request',
    `give it as "?${versionKey}=" and a date such as "Sun, 22 Nov 2026 15:05:01 GMT"`,
  );
}

/** The filters of a list. */
export interface ListQuery {
  /** Versions up to and including this one. */
  readonly upTo?: FileVersion | undefined;
  readonly limit?: number | undefined;
  /** Names after this one in byte order. */
  readonly after?: FileName | undefined;
}

function parseLimit(text: string): number {
  const limit = /^\d{1,15}$/.test(text) ? Number(text) : 0;
  if (limit > 0) return limit;
  throw cannot(
    'invalid-argument',
    `use ${JSON.stringify(text.slice(0, 40))} as a limit`,
    'it must be a whole number above 0',
  );
}

/**
 * Reads the query of a list. `after` is a line of the text form, relative to the directory, or a whole name, as in
 * the JSON form. @throws FiletrackerError `invalid-version`, `invalid-argument`, `invalid-name`.
 */
export function parseListQuery(query: string, directory: string): ListQuery {
  if (query === '') return {};
  const upTo = queryValue(query, versionKey);
  const limit = queryValue(query, 'limit');
  const after = queryValue(query, 'after');
  return {
    // An empty value counts as missing, as in the legacy server.
    upTo: upTo === undefined || upTo === '' ? undefined : parseDate(upTo),
    limit: limit === undefined ? undefined : parseLimit(limit),
    after: after === undefined ? undefined : parseFileName(after.startsWith('/') ? after : directory + after),
  };
}

/** The query with a version, as a client sends it; without the `?`. */
export function formatVersionQuery(version: FileVersion): string {
  return `${versionKey}=${encodeURIComponent(formatDate(version))}`;
}

/** The query of a list, as a client sends it, without the `?`; empty without filters. */
export function formatListQuery(list: ListQuery): string {
  const parts: string[] = [];
  if (list.upTo !== undefined) parts.push(formatVersionQuery(list.upTo));
  if (list.limit !== undefined) parts.push(`limit=${list.limit}`);
  if (list.after !== undefined) parts.push(`after=${encodeURIComponent(list.after)}`);
  return parts.join('&');
}
