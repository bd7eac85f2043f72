// Dates on the wire. Requests have dates of mail (RFC 2822 with its obsolete forms): existing clients write them with
// Python's email.utils, and they are read with the same meaning as by its parsedate_tz, with three exceptions: a zone
// with a colon (`+01:00`, as in ISO 8601) shifts the time, and Python ignores it; `0001` to `0099` are those years,
// and Python takes them for years of two digits; a zone with 60 minutes or more (`+9999`) is not a zone. Responses
// have IMF-fixdate (RFC 9110, 5.6.7).
import { cannot } from '../core/errors.ts';
import { maxVersion, minVersion, type FileVersion } from '../core/file-version.ts';

const monthNames = [
  'january',
  'february',
  'march',
  'april',
  'may',
  'june',
  'july',
  'august',
  'september',
  'october',
  'november',
  'december',
];
const weekdays: ReadonlySet<string> = new Set(['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun']);

/** Month number from 1 by the first three letters or the whole name, lower case. */
const monthNumbers: ReadonlyMap<string, number> = new Map(
  monthNames.flatMap((name, index) => [
    [name, index + 1],
    [name.slice(0, 3), index + 1],
  ]),
);

/** Named zones of mail; hours before UTC. All others count as UTC (RFC 2822, 4.3). */
const zoneHours: ReadonlyMap<string, number> = new Map([
  ['AST', 4],
  ['ADT', 3],
  ['EST', 5],
  ['EDT', 4],
  ['CST', 6],
  ['CDT', 5],
  ['MST', 7],
  ['MDT', 6],
  ['PST', 8],
  ['PDT', 7],
]);

interface CivilTime {
  readonly year: number;
  /** From 1. */
  readonly month: number;
  readonly day: number;
  readonly hour: number;
  readonly minute: number;
  readonly second: number;
}

function isLeapYear(year: number): boolean {
  return year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
}

function daysInMonth(year: number, month: number): number {
  if (month === 2) return isLeapYear(year) ? 29 : 28;
  return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31;
}

/** Second 60 is a leap second, which counts as the next one. */
function isReal(time: CivilTime): boolean {
  return (
    time.month >= 1 &&
    time.month <= 12 &&
    time.day >= 1 &&
    time.day <= daysInMonth(time.year, time.month) &&
    time.hour <= 23 &&
    time.minute <= 59 &&
    time.second <= 60
  );
}

/** Seconds since 1970 of a time in UTC; `undefined` if there is no such time. */
function secondsOf(time: CivilTime, offsetSeconds: number): FileVersion | undefined {
  if (!isReal(time)) return undefined;
  const { year, month, day, hour, minute, second } = time;
  // Date.UTC reads the years 0 to 99 as 1900 to 1999; the calendar repeats after 400 years.
  const shifted = Date.UTC(year + 400, month - 1, day, hour, minute, second) / 1000;
  const seconds = shifted - 12_622_780_800 - offsetSeconds;
  return seconds >= minVersion && seconds <= maxVersion ? seconds : undefined;
}

const digits = /^\d{1,6}$/;

/** A number without a sign, or NaN, which no check accepts. */
function readNumber(text: string | undefined): number {
  return text !== undefined && digits.test(text) ? Number(text) : NaN;
}

/** Two digits mean 1969 to 2068, as in POSIX; four are the year itself, even `0050`. */
function readYear(text: string): number {
  const year = readNumber(text);
  if (text.length >= 4 || year >= 100) return year;
  return year + (year > 68 ? 1900 : 2000);
}

/** `15:05`, `15:05:01`, and with dots. */
function readClock(text: string): Pick<CivilTime, 'hour' | 'minute' | 'second'> | undefined {
  const parts = text.includes(':') ? text.split(':') : text.split('.');
  if (parts.length !== 2 && parts.length !== 3) return undefined;
  return { hour: readNumber(parts[0]), minute: readNumber(parts[1]), second: readNumber(parts[2] ?? '0') };
}

/** Seconds before (negative) or after UTC; `undefined` if the digits are not an offset. `0100` came as `+0100`. */
function readZone(text: string): number | undefined {
  const hours = zoneHours.get(text.toUpperCase());
  if (hours !== undefined) return hours * -3600;
  const offset = /^([+-]?)(\d{0,2}):?(\d\d)$/.exec(text) ?? /^([+-]?)()(\d)$/.exec(text);
  if (offset === null) return /^[+-]?\d/.test(text) ? undefined : 0;
  const minutes = Number(offset[3]);
  if (minutes > 59) return undefined;
  const seconds = Number(offset[2]) * 3600 + minutes * 60;
  return offset[1] === '-' ? -seconds : seconds;
}

interface DateWords {
  readonly day: string;
  readonly month: string;
  readonly year: string;
  readonly clock: string;
  readonly zone: string;
}

function withoutComma(word: string): string {
  return word.endsWith(',') ? word.slice(0, -1) : word;
}

/** Removes the weekday from the words; it may be joined to the day: `Sun,22`. */
function withoutWeekday(words: readonly string[]): string[] {
  const [first = '', ...rest] = words;
  if (first.endsWith(',') || weekdays.has(first.toLowerCase())) return rest;
  return [first.slice(first.lastIndexOf(',') + 1), ...rest];
}

/** The words of a date; `undefined` if there are too few. */
function splitDate(text: string): DateWords | undefined {
  let words = withoutWeekday(text.trim().split(/\s+/));
  if (words.length === 3) {
    const parts = words[0]?.split('-') ?? []; // RFC 850: 22-Nov-26
    if (parts.length === 3) words = [...parts, ...words.slice(1)];
  }
  if (words.length === 4) {
    const last = words[3] ?? '';
    const sign = last.includes('+') ? last.indexOf('+') : last.indexOf('-');
    words = sign > 0 ? [...words.slice(0, 3), last.slice(0, sign), last.slice(sign)] : [...words, ''];
  }
  const [first, second, third, fourth, fifth] = words;
  if (first === undefined || second === undefined || third === undefined) return undefined;
  if (fourth === undefined || fifth === undefined) return undefined;
  const monthFirst = !monthNumbers.has(second.toLowerCase());
  // asctime writes the clock before the year, and `date` the zone between them.
  const [yearOrZone, clock] = third.includes(':') ? [fourth, third] : [third, fourth];
  if (yearOrZone === '') return undefined;
  const zoneFirst = !/^\d/.test(withoutComma(yearOrZone));
  return {
    day: withoutComma(monthFirst ? second : first),
    month: (monthFirst ? first : second).toLowerCase(),
    year: withoutComma(zoneFirst ? fifth : yearOrZone),
    clock: withoutComma(clock),
    zone: zoneFirst ? withoutComma(yearOrZone) : fifth,
  };
}

function readAnyDate(text: string): FileVersion | undefined {
  const words = splitDate(text);
  if (words === undefined) return undefined;
  const month = monthNumbers.get(words.month);
  const clock = readClock(words.clock);
  const offsetSeconds = readZone(words.zone);
  if (month === undefined || clock === undefined || offsetSeconds === undefined) return undefined;
  return secondsOf(
    { year: readYear(words.year), month, day: readNumber(words.day), ...clock },
    offsetSeconds,
  );
}

/** The form of nearly every request: IMF-fixdate, or the same with the zone that Python writes. */
const usualDate = /^[A-Z][a-z]{2}, (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) (?:GMT|[-+]0000)$/;

function readUsualDate(text: string): FileVersion | undefined {
  const parts = usualDate.exec(text);
  if (parts === null) return undefined;
  return secondsOf(
    {
      year: Number(parts[3]),
      month: monthNumbers.get(parts[2]?.toLowerCase() ?? '') ?? 0,
      day: Number(parts[1]),
      hour: Number(parts[4]),
      minute: Number(parts[5]),
      second: Number(parts[6]),
    },
    0,
  );
}

/** Reads a date; `undefined` if it is not one, for headers that RFC 9110 says to ignore then. */
export function readDate(text: string): FileVersion | undefined {
  return readUsualDate(text) ?? readAnyDate(text);
}

/**
 * Reads a date in any form of mail. Without a zone, with `-0000` or with an unknown zone it is in UTC. @throws
 * FiletrackerError `invalid-version` if it is not a date, or not in the years 1 to 9999.
 */
export function parseDate(text: string): FileVersion {
  const version = readDate(text);
  if (version !== undefined) return version;
  const shown = JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);
  throw cannot('invalid-version', `read ${shown} as a date`, 'write it as "Sun, 22 Nov 2026 15:05:01 GMT"');
}

/** Writes a version as IMF-fixdate: `Sun, 22 Nov 2026 15:05:01 GMT`. */
export function formatDate(version: FileVersion): string {
  const known = formattedDates.get(version);
  if (known !== undefined) return known;
  const text = new Date(version * 1000).toUTCString();
  if (formattedDates.size >= formattedDatesMax) formattedDates.clear();
  formattedDates.set(version, text);
  return text;
}

/** Recently written dates: formatting one takes 1.1 µs of the 23 that a GET of a small file takes. */
const formattedDates = new Map<FileVersion, string>();
const formattedDatesMax = 4096;
