import { replacement } from '../unreadable-words.ts';

/**
 * `filetracker [-r URL] [-c DIR] get NAME LOCAL`, without any other flag. Workers start the program in this form for each
 * file, and loading all of it takes longer than most transfers, so this form skips the command line parser.
 */
export interface PlainGet {
  readonly name: string;
  readonly target: string;
  readonly cacheDir: string | undefined;
  readonly remoteUrl: string | undefined;
}

/** `undefined` for any other form. */
export function readPlainGet(words: readonly string[]): PlainGet | undefined {
  const flags = new Map<string, string>();
  let at = 0;
  for (; words[at]?.startsWith('-') === true; at += 2) {
    const [flag, value] = [words[at] ?? '', words[at + 1]];
    const known = ['-r', '--remote-url', '-c', '--cache-dir'].includes(flag);
    if (!known || value === undefined || value === '' || value.startsWith('-')) return undefined;
    flags.set(flag.replace(/^--?(.).*/, '$1'), value);
  }
  const [command, name, target, ...more] = words.slice(at);
  if (command !== 'get' || name === undefined || target === undefined || more.length > 0) return undefined;
  if (name.startsWith('-') || target.startsWith('-') || target === '') return undefined;
  if (words.some((word) => word.includes(replacement))) return undefined;
  return { name, target, cacheDir: flags.get('c'), remoteUrl: flags.get('r') };
}

/** Whether the name may contain a version, which only the cache can be asked for without the server. */
export function mayHaveVersion({ name }: PlainGet): boolean {
  return /@-?\d+$/.test(name);
}
