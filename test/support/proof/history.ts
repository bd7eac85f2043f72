import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import type { Random } from './random.ts';

/** A change that was asked for. The sequence is the recorder's. */
export interface Attempt {
  readonly id: number;
  readonly kind: 'put' | 'remove';
  readonly name: string;
  readonly version: number;
  /** Names the content of a put: see `contentOf`. */
  readonly content: string;
  /** The sequence when it was asked for. */
  readonly begin: number;
  /** The sequence when it was acknowledged; undefined where no answer came, or one that promises nothing. */
  end?: number | undefined;
  /** It was refused in a way that says that nothing was changed. */
  refused?: boolean | undefined;
}

/** A line of a history file. */
export type HistoryLine =
  { readonly asked: Attempt } | { readonly id: number; readonly end?: number; readonly refused?: boolean };

export function readHistory(...paths: readonly string[]): Attempt[] {
  const attempts = new Map<number, Attempt>();
  for (const path of paths) {
    if (!existsSync(path)) continue;
    for (const text of readFileSync(path, 'utf8').split('\n')) {
      // A death may have cut the last line short; what it said was not acknowledged to anybody.
      if (!text.endsWith('}')) continue;
      const line = JSON.parse(text) as HistoryLine;
      if ('asked' in line) attempts.set(line.asked.id, line.asked);
      else {
        const attempt = attempts.get(line.id);
        if (attempt) Object.assign(attempt, line);
      }
    }
  }
  return [...attempts.values()];
}

const contents = new Map<string, Buffer>();

/** The content of this name: `<size>-<seed>`; half of it repeats, so that it compresses. */
export function contentOf(content: string): Buffer {
  let bytes = contents.get(content);
  if (bytes === undefined) {
    const size = Number(content.split('-')[0]);
    bytes = Buffer.alloc(size);
    const random = createHash('shake256', { outputLength: Math.ceil(size / 2) + 1 })
      .update(content)
      .digest();
    bytes.fill(content);
    random.copy(bytes, 0, 0, Math.ceil(size / 2));
    if (contents.size > 500) contents.clear();
    contents.set(content, bytes);
  }
  return bytes;
}

export function contentDigest(content: string): string {
  return createHash('sha256').update(contentOf(content)).digest('hex');
}

/** Draws a content: small ones mostly, some over what lies in the journal, some shared by many names. */
export function drawContent(random: Random): string {
  const size = random.pick([0, 40, 300, 300, 2_000, 2_000, 9_000, 17_000, 40_000, 150_000]);
  return random.chance(0.3) ? `${size}-shared${random.below(3)}` : `${size}-${random.below(1e9)}`;
}

/** What may stand under a name: `<version> <content>`, or `absent`. */
export type NameState = string;

export function isAbsent(state: NameState): boolean {
  return state === 'absent';
}

/** The state after a change: the newest version wins. */
export function applied(
  state: NameState,
  change: { readonly kind: 'put' | 'remove'; readonly version: number; readonly content: string },
): NameState {
  const stands = isAbsent(state) ? -Infinity : Number(state.split(' ')[0]);
  if (stands > change.version) return state;
  return change.kind === 'put' ? `${change.version} ${change.content}` : 'absent';
}

/**
 * What may stand under each name after all that was acknowledged up to a point of the sequence. Of each name one
 * change at a time must have been asked for: then what was acknowledged is there, in its order, and what had
 * been asked for and not acknowledged may be there or not. What was asked for later is not.
 */
export function possibleStates(
  attempts: readonly Attempt[],
  sequence = Infinity,
): Map<string, Set<NameState>> {
  const states = new Map<string, Set<NameState>>();
  for (const attempt of attempts) {
    if (attempt.begin > sequence || attempt.refused) continue;
    const before = states.get(attempt.name) ?? new Set(['absent']);
    const after = new Set([...before].map((state) => applied(state, attempt)));
    const acknowledged = attempt.end !== undefined && attempt.end <= sequence;
    states.set(attempt.name, acknowledged ? after : new Set([...before, ...after]));
  }
  return states;
}
