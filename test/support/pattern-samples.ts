/** Letters that stand for classes. */
const classLetters: Readonly<Record<string, string>> = { d: '1', w: 'a', s: ' ', S: 'a', b: '', p: '\u0001' };
const repeatMax = 64;

/**
 * Texts that a regular expression matches, or nearly: of each group the first or the last alternative, of each class
 * one letter, of what is optional or repeated one.
 */
export function samplesOf(pattern: RegExp): readonly string[] {
  return [
    ...new Set([new Sampler(pattern.source, 'first').sample(), new Sampler(pattern.source, 'last').sample()]),
  ];
}

class Sampler {
  readonly #source: string;
  readonly #alternative: 'first' | 'last';
  #at = 0;

  constructor(source: string, alternative: 'first' | 'last') {
    this.#source = source;
    this.#alternative = alternative;
  }

  /** Alternatives, up to the end of their group. */
  sample(): string {
    const alternatives = [''];
    while (this.#at < this.#source.length && this.#source[this.#at] !== ')') {
      if (this.#source[this.#at] === '|') {
        this.#at += 1;
        alternatives.push('');
      } else alternatives.push((alternatives.pop() ?? '') + this.#term());
    }
    this.#at += 1;
    return (this.#alternative === 'first' ? alternatives[0] : alternatives.at(-1)) ?? '';
  }

  #take(form: RegExp): RegExpExecArray | undefined {
    const found = form.exec(this.#source.slice(this.#at)) ?? undefined;
    this.#at += found?.[0].length ?? 0;
    return found;
  }

  #term(): string {
    const atom = this.#atom();
    const count = this.#take(/^\{(\d+)[^}]*\}\??/)?.[1];
    this.#take(/^[*+?]\??/);
    return atom.repeat(Math.min(count === undefined ? 1 : Number(count), repeatMax));
  }

  #atom(): string {
    const group = this.#take(/^\((\?(?:[:=!]|<[=!]|<\w+>))?/);
    if (group !== undefined) {
      const inner = this.sample();
      return /[=!]$/.test(group[0]) ? '' : inner;
    }
    const set = this.#take(/^\[(\^?)((?:\\u[0-9a-f]{4}|\\.|[^\]\\])*)\]/i);
    if (set !== undefined) return set[1] === '^' ? '\u0001' : letterOf(set[2] ?? '');
    const escaped = this.#take(/^(?:\\u[0-9a-f]{4}|\\p\{\w+\}|\\.)/i);
    if (escaped !== undefined) return letterOf(escaped[0]);
    const letter = this.#source[this.#at] ?? '';
    this.#at += 1;
    if (letter === '.') return 'a';
    return letter === '^' || letter === '$' ? '' : letter;
  }
}

/** The first letter of a class, or of an escape. */
function letterOf(text: string): string {
  const code = /^\\u([0-9a-f]{4})/i.exec(text)?.[1];
  if (code !== undefined) return String.fromCharCode(Number.parseInt(code, 16));
  if (!text.startsWith('\\')) return text.slice(0, 1);
  const letter = text.slice(1, 2);
  return classLetters[letter] ?? letter;
}
