import { cannot } from './errors.ts';
import { checkVersion } from './file-version.ts';
import { componentSizeMaxBytes, nameSizeMaxBytes } from './limits.ts';

declare const nameBrand: unique symbol;

/**
 * The absolute path of a file in the store, such as `/a/b.txt`: it begins with a slash, has no empty, `.` or `..`
 * component and no control character; UTF-8, at most 1,024 bytes, a component at most 255. To the server `@` is an
 * ordinary character. Names are compared byte by byte: NFC and NFD are two names.
 */
export type FileName = string & { readonly [nameBrand]: true };

const slash = 0x2f;
const controlCharacter = /\p{Cc}/u;
/** Names of printable ASCII, by far the most: one test checks everything but dots and lengths. */
const plainName = /^(?:\/[ -.0-~]+)+$/;

function refuse(name: string, state: string): never {
  const shown = JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name);
  throw cannot('invalid-name', `use the name ${shown}`, state);
}

/** Callers without types may pass anything. @throws FiletrackerError `invalid-argument`. */
function requireText(text: unknown): void {
  if (typeof text === 'string') return;
  throw cannot('invalid-argument', `use a name that is ${typeof text}`, 'it must be text');
}

/**
 * Checks the form of a name (PROTOCOL.md). @throws FiletrackerError `invalid-name`, with a text that says what to
 * change.
 *
 * @example
 * ```ts
 * import { parseFileName } from 'filetracker';
 * import type { FileName } from 'filetracker';
 *
 * const name: FileName = parseFileName('/a/b.txt');
 * console.log(name); // /a/b.txt
 * ```
 */
export function parseFileName(text: string): FileName {
  requireText(text);
  if (text === '' || text === '/') refuse(text, 'it is empty');
  if (!text.startsWith('/')) refuse(text, 'it must begin with "/"');
  const ascii = plainName.test(text);
  if (!ascii && controlCharacter.test(text)) refuse(text, 'it holds a control character');
  if (!ascii && !text.isWellFormed()) refuse(text, 'it is not valid Unicode');
  const sizeBytes = ascii ? text.length : Buffer.byteLength(text);
  if (sizeBytes > nameSizeMaxBytes) refuse(text, `it is longer than ${nameSizeMaxBytes} bytes`);
  if (ascii && sizeBytes <= componentSizeMaxBytes && !text.includes('/.')) return text as FileName;
  for (const component of text.slice(1).split('/')) {
    if (component === '') refuse(text, 'it holds an empty component ("//" or a slash at the end)');
    if (component === '.' || component === '..') refuse(text, 'it holds a "." or ".." component');
    if (Buffer.byteLength(component) > componentSizeMaxBytes) {
      refuse(text, `a component is longer than ${componentSizeMaxBytes} bytes`);
    }
  }
  return text as FileName;
}

/** The directories above a name, nearest to the root first: `/a/b/c` has `/a`, `/a/b`. */
export function ancestorsOf(name: FileName): FileName[] {
  const ancestors: FileName[] = [];
  for (let slash = name.indexOf('/', 1); slash !== -1; slash = name.indexOf('/', slash + 1)) {
    ancestors.push(name.slice(0, slash) as FileName);
  }
  return ancestors;
}

/** A path or URL without trailing slashes. A pattern for this takes quadratic time in the number of slashes. */
export function withoutTrailingSlashes(text: string): string {
  let end = text.length;
  while (text.charCodeAt(end - 1) === slash) end -= 1;
  return text.slice(0, end);
}

/** Reads a directory, which ends in a slash: `/` or `/a/b/`. @throws FiletrackerError `invalid-name`. */
export function parseDirectory(text: string): string {
  requireText(text);
  const trimmed = withoutTrailingSlashes(text);
  return trimmed === '' ? '/' : `${parseFileName(trimmed)}/`;
}

/** A name with or without a version. */
export interface VersionedName {
  readonly name: FileName;
  readonly version?: number;
}

/**
 * A name in the client API: text, which may end in a version (`/a/b.txt@1700000000`), or name and version apart, so
 * that no version is read from the name. The info of a file has both.
 */
export type GivenName = string | { readonly name: string; readonly version?: number | undefined };

/** Only this is a version; any other `@` is part of the name, as in `/@types/a@2x.png`. */
const versionSuffix = /@(-?\d+)$/;
const versionDigitsMax = 12;

/**
 * Whether the end of a name looks like a version: as text it then needs its own version behind it,
 * `/x@12@1700000000`.
 */
export function endsLikeVersion(name: string): boolean {
  return versionSuffix.test(name);
}

/**
 * Reads `name[@version]`, which only clients use.
 * @throws FiletrackerError `invalid-name`, `invalid-version`.
 *
 * @example
 * ```ts
 * import { parseVersionedName } from 'filetracker';
 * import type { GivenName, VersionedName } from 'filetracker';
 *
 * const given: GivenName = '/a/b.txt@1700000000';
 * const { name, version }: VersionedName = parseVersionedName(given);
 * console.log(name, version); // /a/b.txt 1700000000
 * ```
 */
export function parseVersionedName(given: GivenName): VersionedName {
  if (typeof given === 'object' && given !== null) {
    const { name, version } = given;
    return version === undefined
      ? { name: parseFileName(name) }
      : { name: parseFileName(name), version: checkVersion(version) };
  }
  requireText(given);
  const found = versionSuffix.exec(given);
  if (found === null) return { name: parseFileName(given) };
  const digits = found[1] ?? '';
  if (digits.length > versionDigitsMax) refuse(given, 'its version has too many digits');
  return { name: parseFileName(given.slice(0, found.index)), version: Number(digits) };
}

/** A name as it was given, for messages. */
export function shownName(given: GivenName): string {
  if (typeof given !== 'object' || given === null) return given;
  return given.version === undefined ? given.name : `${given.name}@${given.version}`;
}

/**
 * The text of a versioned name, which `parseVersionedName` reads.
 *
 * @example
 * ```ts
 * import { formatVersionedName, parseFileName } from 'filetracker';
 *
 * console.log(formatVersionedName(parseFileName('/a/b.txt'), 1_700_000_000)); // /a/b.txt@1700000000
 * ```
 */
export function formatVersionedName(name: FileName, version: number): string {
  return `${name}@${version}`;
}
