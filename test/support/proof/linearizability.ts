/** What stands under a name. */
export type Register = { readonly version: number; readonly content: string } | undefined;

/** A request on one name and what was answered; times are of one clock. */
export interface Operation {
  readonly call: PutCall | RemoveCall | ReadCall;
  readonly begin: number;
  /** Undefined where no answer came: it may have taken effect at any time since, or never. */
  readonly end: number | undefined;
}

/** Stores unless a newer version is there; answers with the version that is there then. */
interface PutCall {
  readonly kind: 'put';
  readonly version: number;
  readonly content: string;
  readonly answer: number | undefined;
}

/** Removes unless a newer version is there; answers with that, or that it was removed, or that nothing was there. */
interface RemoveCall {
  readonly kind: 'remove';
  readonly version: number;
  readonly answer: number | 'removed' | 'absent' | undefined;
}

interface ReadCall {
  readonly kind: 'read';
  readonly answer: Register;
}

/** What stands under the name. */
interface State {
  readonly register: Register;
}

const never: State = { register: undefined };

/** The state after the call; `wrong` where the answer does not fit. */
function step(state: State, call: Operation['call']): { readonly next: State } | 'wrong' {
  const { register } = state;
  if (call.kind === 'read') {
    const same = register?.version === call.answer?.version && register?.content === call.answer?.content;
    return same ? { next: state } : 'wrong';
  }
  if (call.kind === 'put') {
    const newest = register?.version ?? -Infinity;
    const taken = newest <= call.version;
    if (call.answer !== undefined && call.answer !== (taken ? call.version : newest)) return 'wrong';
    const next = { register: { version: call.version, content: call.content } };
    return { next: taken ? next : state };
  }
  const newer = register !== undefined && register.version > call.version;
  const answer = register === undefined ? 'absent' : newer ? register.version : 'removed';
  if (call.answer !== undefined && call.answer !== answer) return 'wrong';
  if (register === undefined || newer) return { next: state };
  return { next: { register: undefined } };
}

/**
 * Whether there is an order of the operations that respects time (what had ended before another began comes first) and
 * in which every answer is what a register with versions gives: the search of Wing and Gong, with memory of the
 * situations that led nowhere.
 */
export function isLinearizable(operations: readonly Operation[]): boolean {
  const all = [...operations].sort((one, other) => one.begin - other.begin);
  const deadEnds = new Set<string>();
  const search = (left: readonly Operation[], state: State): boolean => {
    const firstEnd = Math.min(...left.map(({ end }) => end ?? Infinity));
    if (firstEnd === Infinity) return true;
    const situation = `${left.map((operation) => all.indexOf(operation)).join(',')} ${JSON.stringify(state)}`;
    if (deadEnds.has(situation)) return false;
    for (const operation of left) {
      if (operation.begin > firstEnd) break;
      const result = step(state, operation.call);
      if (result === 'wrong') continue;
      if (
        search(
          left.filter((other) => other !== operation),
          result.next,
        )
      ) {
        return true;
      }
    }
    deadEnds.add(situation);
    return false;
  };
  return search(all, never);
}
