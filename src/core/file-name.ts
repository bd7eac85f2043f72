import { FiletrackerError } from './errors.ts';
import { componentSizeMaxBytes, nameSizeMaxBytes } from './limits.ts';

declare const nameBrand: unique symbol;

/**
 * The absolute path of a file in the store, as `/a/b.txt`: begins with a slash, has no empty, `.` or `..`
 * component and no control character; UTF-8, at most 1,024 bytes, a component at most 255. To the server
 * `@` is a letter like any other. Names are compared byte by byte: NFC and NFD are two names.
 */
export type FileName = string & { readonly [nameBrand]: true };

const controlCharacter = /\p{Cc}/u;
/** Names of printable ASCII, by far the most: one test says all about them but dots and lengths. */
const plainName = /^(?:\/[ -.0-~]+)+$/;

function refuse(name: string, state: string): never {
  const shown = JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name);
  throw new FiletrackerError('invalid-name', `Cannot use the name ${shown}: ${state}`);
}

/** Programs without types may pass anything. @throws FiletrackerError `invalid-argument`. */
function requireText(text: unknown): void {
  if (typeof text === 'string') return;
  throw new FiletrackerError('invalid-argument', `Cannot use a name that is ${typeof text}: it must be text`);
}

/**
 * Checks the form of a name.
 * @throws FiletrackerError `invalid-name`, with a text that says what to change. Source of the rules: protocol.
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

/** The folders above a name, nearest to the root first: `/a/b/c` gives `/a`, `/a/b`. */
export function ancestorsOf(name: FileName): FileName[] {
  const ancestors: FileName[] = [];
  for (let slash = name.indexOf('/', 1); slash !== -1; slash = name.indexOf('/', slash + 1)) {
    ancestors.push(name.slice(0, slash) as FileName);
  }
  return ancestors;
}

/**
 * A directory of names, ending in a slash: `/` or `/a/b/`.
 * @throws FiletrackerError `invalid-name`, as for a name.
 */
export function parseDirectory(text: string): string {
  requireText(text);
  const trimmed = text.replace(/\/+$/, '');
  return trimmed === '' ? '/' : `${parseFileName(trimmed)}/`;
}

/** A name with or without a version, as clients write it: `/a/b.txt@1700000000`. */
export interface VersionedName {
  readonly name: FileName;
  readonly version?: number;
}

/**
 * Reads `name[@version]`, the form that only clients know.
 * @throws FiletrackerError `invalid-name` where `@` stands elsewhere than before a version at the end.
 */
export function parseVersionedName(text: string): VersionedName {
  requireText(text);
  const at = text.lastIndexOf('@');
  if (at === -1) return { name: parseFileName(text) };
  const bare = text.slice(0, at);
  const version = text.slice(at + 1);
  if (!/^-?\d{1,12}$/.test(version) || bare.includes('@')) {
    refuse(text, '"@" may stand only before a version, as in "/a/b.txt@1700000000"');
  }
  return { name: parseFileName(bare), version: Number(version) };
}

export function formatVersionedName(name: FileName, version: number): string {
  return `${name}@${version}`;
}
