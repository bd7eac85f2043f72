import { contentDigest, contentOf, isAbsent, type NameState } from './history.ts';

/** What is found under a name; `digest` or `body` says which content. */
export interface FoundFile {
  readonly version: number;
  readonly digest?: string | undefined;
  readonly body?: Buffer | undefined;
}

/** Whether what is found, or that nothing is, fits the state. */
export function fits(state: NameState, found: FoundFile | undefined): boolean {
  if (found === undefined || isAbsent(state)) return found === undefined && isAbsent(state);
  const [version, content = ''] = state.split(' ');
  if (Number(version) !== found.version) return false;
  if (found.digest !== undefined && contentDigest(content) !== found.digest) return false;
  return found.body === undefined || contentOf(content).equals(found.body);
}

/** All that may have stood under a name at some time since a reader began to look. */
export interface NameWatch {
  readonly states: ReadonlySet<NameState>;
  end(): void;
}

/** What may stand under each name, with those who read it meanwhile: a reader may see any state of the time it takes. */
export class NameStates {
  readonly #states = new Map<string, ReadonlySet<NameState>>();
  readonly #watches = new Map<string, Set<Set<NameState>>>();

  get names(): readonly string[] {
    return [...this.#states.keys()];
  }

  of(name: string): ReadonlySet<NameState> {
    return this.#states.get(name) ?? new Set(['absent']);
  }

  set(name: string, states: ReadonlySet<NameState>): void {
    this.#states.set(name, states);
    for (const watched of this.#watches.get(name) ?? []) for (const state of states) watched.add(state);
  }

  watch(name: string): NameWatch {
    const states = new Set(this.of(name));
    const watches = this.#watches.get(name) ?? new Set();
    this.#watches.set(name, watches.add(states));
    return { states, end: () => watches.delete(states) };
  }
}
