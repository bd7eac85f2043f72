// A setting of a program is declared once, in a table. From the table come the options of the command line, the types of
// their values (by inference), the help, shell completion, and the tables of docs/OPERATIONS.md.
import { resolve } from 'node:path';
import { cannot, isFiletrackerError } from '../core/errors.ts';
import { parseDurationMs, parseSizeBytes } from '../core/quantities.ts';

/** How values of a setting are written. */
export interface Kind<Value> {
  /** @param flag names the setting in errors. @throws FiletrackerError `invalid-argument`. */
  read(text: string, flag: string): Value;
  /** The text that reads as this value. */
  show(value: Value): string;
  /** The words that it accepts, for completion. */
  readonly words?: readonly string[];
}

export interface Setting {
  /** As commander writes them: `-p, --port <port>`. */
  readonly flags: string;
  readonly kind: Kind<unknown>;
  /** Used if neither flag nor variable is given; without it the value is `undefined`. */
  readonly initial?: unknown;
  /** The default in words, if it is not `initial`. */
  readonly initially?: string;
  /** May be given again; the value is a list. */
  readonly many?: true;
  readonly required?: true;
  /** An empty value counts as none, for scripts that pass an empty variable. */
  readonly mayBeEmpty?: true;
  /** Environment variable; the flag wins. */
  readonly variable?: string;
  /** Older spellings, which keep working but are not shown. */
  readonly aliases?: readonly string[];
  readonly help: string;
}

export type Settings = Readonly<Record<string, Setting>>;

/** Settings under one heading of the help. */
export interface Section<Table extends Settings = Settings> {
  readonly heading: string;
  readonly settings: Table;
}

export type Environment = Readonly<Record<string, string | undefined>>;

type Camel<Text extends string> = Text extends `${infer Head}-${infer Tail}`
  ? `${Head}${Capitalize<Camel<Tail>>}`
  : Text;
type LongName<Flags extends string> = Flags extends `${string}--${infer Rest}`
  ? Rest extends `${infer Name} ${string}`
    ? Name
    : Rest
  : never;
/** The member under which commander stores an option: `gcGrace` for `--gc-grace <time>`, `cache` for `--no-cache`. */
type Member<Flags extends string> =
  LongName<Flags> extends `no-${infer Name}` ? Camel<Name> : Camel<LongName<Flags>>;

type KindValue<S extends Setting> = S['kind'] extends Kind<infer Value> ? Value : never;
type SettingValue<S extends Setting> = S extends { many: true }
  ? readonly KindValue<S>[]
  : S extends { initial: unknown } | { required: true }
    ? KindValue<S>
    : KindValue<S> | undefined;
type SettingText<S extends Setting> = S extends { many: true }
  ? readonly string[]
  : [KindValue<S>] extends [boolean]
    ? boolean
    : string;

type TableOf<S extends Section> = S['settings'];
/** The checked values of a section. */
export type Values<S extends Section> = {
  readonly [Key in keyof TableOf<S>]: SettingValue<TableOf<S>[Key]>;
};
/** The flags of a section as commander returns them. */
export type Flags<S extends Section> = {
  readonly [Key in keyof TableOf<S> as Member<TableOf<S>[Key]['flags']>]?:
    SettingText<TableOf<S>[Key]> | undefined;
};

export function section<const Table extends Settings>(heading: string, settings: Table): Section<Table> {
  return { heading, settings };
}

type Details = Partial<Omit<Setting, 'flags' | 'help' | 'kind'>>;

/** A setting with a value. @param details its default, variable and so on. */
export function option<
  const Flags extends string,
  Value,
  const More extends Details & { initial?: Value } = object,
>(
  flags: Flags,
  help: string,
  kind: Kind<Value>,
  details?: More,
): { flags: Flags; help: string; kind: Kind<Value> } & More {
  return { flags, help, kind, ...(details ?? ({} as More)) };
}

/** A setting without a value, which is on if it is given. */
export function flag<const Flags extends string>(
  flags: Flags,
  help: string,
  details: Details = {},
): { flags: Flags; help: string; kind: Kind<boolean> } {
  return { ...details, flags, help, kind: toggle };
}

export function refuseFlag(flag: string, value: string, state: string): never {
  throw cannot('invalid-argument', `use ${flag} "${value}"`, state);
}

/** `--gc-grace` of `--gc-grace <time>`. */
export function longFlag(flags: string): string {
  return /--[\w-]+/.exec(flags)?.[0] ?? flags;
}

/** The member under which commander stores an option, as the type `Member`. */
export function memberOf(flags: string): string {
  const name = longFlag(flags).replace(/^--(?:no-)?/, '');
  return name.replaceAll(/-(.)/g, (_dash, letter: string) => letter.toUpperCase());
}

function readOne(setting: Setting, given: unknown, environment: Environment): unknown {
  const { flags, kind, variable, initial, mayBeEmpty = false } = setting;
  const flag = longFlag(flags);
  if (typeof given === 'boolean') return given;
  if (Array.isArray(given)) return given.map((text) => kind.read(String(text), flag));
  if (typeof given === 'string' && given !== '') return kind.read(given, flag);
  if (given === '' && !mayBeEmpty) refuseFlag(flag, '', 'it is empty; pass a value, or leave the flag out');
  const text = variable === undefined ? undefined : nonEmpty(environment[variable]);
  if (text !== undefined && variable !== undefined) return kind.read(text, variable);
  return setting.many === true ? [] : initial;
}

/** Reads and checks the values of a section. @throws FiletrackerError `invalid-argument`, which names the flag. */
export function readSettings<S extends Section>(
  { settings }: S,
  flags: Flags<S>,
  environment: Environment = {},
): Values<S> {
  const given = new Map<string, unknown>(Object.entries(flags));
  const values = Object.entries(settings).map(([key, setting]) => [
    key,
    readOne(setting, given.get(memberOf(setting.flags)), environment),
  ]);
  return Object.fromEntries(values) as Values<S>;
}

/** A variable that is empty or blank counts as not set. */
function nonEmpty(text: string | undefined): string | undefined {
  return text === undefined || text.trim() === '' ? undefined : text;
}

/** The default of a setting in words; `undefined` if it has none. */
export function defaultOf({ kind, initial, initially, variable }: Setting): string | undefined {
  const value = initially ?? (initial === undefined || initial === false ? undefined : kind.show(initial));
  if (variable === undefined) return value;
  return value === undefined ? `$${variable}` : `$${variable}, else ${value}`;
}

/** The largest unit that divides a value. */
function withUnit(value: number, units: readonly (readonly [unit: string, size: number])[]): string {
  const [unit, size] = units.find(([, size]) => value > 0 && value % size === 0) ?? ['', 1];
  return `${value / size}${unit}`;
}

const sizeUnits = [
  ['T', 1024 ** 4],
  ['G', 1024 ** 3],
  ['M', 1024 ** 2],
  ['K', 1024],
] as const;
const durationUnits = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
] as const;

function quantity(
  parse: (text: string) => number,
  units: Parameters<typeof withUnit>[1],
  { least, most, tooLow, tooHigh }: { least: number; most: number; tooLow: string; tooHigh: string },
): Kind<number> {
  return {
    read(text, flag) {
      const value = parseNamed(text, flag, parse);
      if (value > most || !Number.isSafeInteger(value)) refuseFlag(flag, text, tooHigh);
      return value >= least ? value : refuseFlag(flag, text, tooLow);
    },
    show: (value) => withUnit(value, units),
  };
}

function parseNamed(text: string, flag: string, parse: (text: string) => number): number {
  try {
    return parse(text);
  } catch (error) {
    if (!isFiletrackerError(error, 'invalid-argument')) throw error;
    return refuseFlag(flag, text, error.message.slice(error.message.lastIndexOf(': ') + 2));
  }
}

interface Bounds {
  readonly least?: number;
  readonly most?: number;
}

/** Bytes: `1048576`, `10G`, `1G512M`. */
export function size({ least = 0, most = Number.MAX_SAFE_INTEGER }: Bounds = {}): Kind<number> {
  const tooLow = least === 1 ? 'it must be more than 0' : `it must be ${withUnit(least, sizeUnits)} or more`;
  const tooHigh = 'it is too large';
  return quantity(parseSizeBytes, sizeUnits, { least, most, tooLow, tooHigh });
}

/** Milliseconds: `90s`, `1h30m`. */
export function duration({ least = 0, most = Number.MAX_SAFE_INTEGER }: Bounds = {}): Kind<number> {
  const tooLow = least === 1 ? 'it must be more than 0' : `it must be ${least} ms or more`;
  const tooHigh =
    most < Number.MAX_SAFE_INTEGER
      ? `it must be ${withUnit(most, durationUnits)} or less`
      : 'it is too large';
  return quantity(parseDurationMs, durationUnits, { least, most, tooLow, tooHigh });
}

/** A whole number. */
export function count(least: number, most = 999_999_999_999): Kind<number> {
  return {
    read(text, flag) {
      const number = /^\d{1,12}$/.test(text) ? Number(text) : -1;
      if (number >= least && number <= most) return number;
      return refuseFlag(flag, text, `it must be a whole number from ${least} to ${most}`);
    },
    show: String,
  };
}

/** The same kind, but 0 means that there is none. */
export function unlessZero(kind: Kind<number>): Kind<number | undefined> {
  return {
    read: (text, flag) => kind.read(text, flag) || undefined,
    show: (value) => (value === undefined ? '0' : kind.show(value)),
  };
}

export function choice<const Word extends string>(...words: readonly Word[]): Kind<Word> {
  return {
    words,
    read(text, flag) {
      const last = words.at(-1) ?? '';
      return (
        words.find((word) => word === text) ??
        refuseFlag(flag, text, `it must be ${words.slice(0, -1).join(', ')} or ${last}`)
      );
    },
    show: (value) => value,
  };
}

/** Whatever `read` makes of a text; such a setting has no default to show. */
export function parsed<Value>(read: Kind<Value>['read']): Kind<Value> {
  return { read, show: String };
}

export const text: Kind<string> = parsed((text) => text);
/** The path of a file or folder, as an absolute path. */
export const path: Kind<string> = parsed((text) => resolve(text));
const toggle: Kind<boolean> = parsed((text) => text !== '');
