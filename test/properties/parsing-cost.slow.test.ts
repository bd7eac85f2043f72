import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readServerConfig } from '../../src/config/server-config.ts';
import { isToken, makeToken, parseRights } from '../../src/access/token.ts';
import { componentMatcher } from '../../src/client/cache/glob.ts';
import { parseServerAddress } from '../../src/client/http/server-address.ts';
import { systemClock } from '../../src/core/clock.ts';
import { digestOf, parseDigest } from '../../src/core/digest.ts';
import { isFiletrackerError } from '../../src/core/errors.ts';
import { parseDirectory, parseFileName, parseVersionedName } from '../../src/core/file-name.ts';
import { parseDurationMs, parseSizeBytes } from '../../src/core/quantities.ts';
import { parseAuthorization } from '../../src/protocol/authorization.ts';
import { parseClaims, parseRetryAge, parseSize } from '../../src/protocol/content-claims.ts';
import { acceptedEncodings, parseContentEncoding } from '../../src/protocol/content-encoding.ts';
import { parseDate, readDate } from '../../src/protocol/dates.ts';
import {
  digestOfEtag,
  encodingOfEtag,
  etagOf,
  matchHolds,
  namedEncoding,
  parseEntityTags,
} from '../../src/protocol/etags.ts';
import { parseEntryLine, parseNameLine } from '../../src/protocol/list-format.ts';
import { parsePrecondition } from '../../src/protocol/preconditions.ts';
import { asOneLine, errorOfAnswer, wantsProblem } from '../../src/protocol/problems.ts';
import { namesType, parseWeightedList } from '../../src/protocol/quality.ts';
import { parseListQuery, queryValue, queryVersion, requiredVersion } from '../../src/protocol/query.ts';
import { ifRangeHolds, parseContentRange, parseRange } from '../../src/protocol/ranges.ts';
import { encodeName, parseTarget } from '../../src/protocol/request-target.ts';
import { hasRepeatedHeader } from '../../src/server/connections/refusals.ts';
import { senderOf } from '../../src/access/rate-limiter.ts';
import { TokenBook, TokenPrincipal } from '../../src/access/token-book.ts';
import { nastyInputs, nastySizeBytes, tooDear } from '../support/nasty-inputs.ts';
import { samplesOf } from '../support/pattern-samples.ts';
import { patternsIn } from '../support/source-patterns.ts';

const sources = join(import.meta.dirname, '../../src');
const digest = digestOf(Buffer.from('content'));
const tag = etagOf(digest, 'gzip');
const date = 'Sun, 22 Nov 2026 15:05:01 GMT';
const dates = [date, 'Sunday, 22-Nov-26 15:05:01 +0100', 'Sun Nov 22 15:05:01 UTC 2026'];
const query = `last_modified=${encodeURIComponent(date)}&limit=10&after=%2Fa%2Fb`;
const names = ['/a/b.txt', '/\u017c\u00f3/x@1700000000'];
const token = {
  name: 'a',
  id: 'i',
  secretHash: digest,
  prefixes: ['/a'],
  rights: ['read'],
  createdAtMs: 1,
} as const;
const tokens = new TokenBook([token]);

interface Parser {
  /** Inputs that it takes. */
  readonly samples: readonly string[];
  readonly parse: (text: string) => unknown;
}

/** Everything that takes bytes from a peer or a file, by what it is called. */
const parsers: Readonly<Record<string, Parser>> = {
  parseAuthorization: { samples: ['Basic dTpw', 'Bearer  ft_x'], parse: parseAuthorization },
  'TokenBook.holderOf': { samples: [`ft_${'x'.repeat(51)}`], parse: (text) => tokens.holderOf(text) },
  parseClaims: {
    samples: [digest, '10'],
    parse: (text) => [attempt(() => parseClaims(text, undefined)), parseClaims(undefined, text)],
  },
  parseSize: { samples: ['10'], parse: (text) => parseSize('Logical-Size', text) },
  parseRetryAge: { samples: ['1.250'], parse: parseRetryAge },
  parseDigest: { samples: [digest], parse: parseDigest },
  parseContentEncoding: { samples: ['gzip'], parse: parseContentEncoding },
  acceptedEncodings: { samples: ['gzip;q=0.5, identity;q=0'], parse: acceptedEncodings },
  parseWeightedList: { samples: ['text/plain;level=1;q=0.5, */*'], parse: parseWeightedList },
  namesType: {
    samples: ['application/json;q=0.5, */*'],
    parse: (text) => namesType(text, ['application/json']),
  },
  wantsProblem: { samples: ['application/json;q=0.5, */*'], parse: wantsProblem },
  readDate: { samples: dates, parse: readDate },
  parseDate: { samples: dates, parse: parseDate },
  parseEntityTags: { samples: ['"a", W/"b"', tag], parse: parseEntityTags },
  namedEncoding: { samples: [`"a", W/${tag}`], parse: (text) => namedEncoding(text, digest, 'gzip') },
  matchHolds: { samples: [`"a", ${tag}`], parse: (text) => matchHolds(text, digest) },
  digestOfEtag: { samples: [tag], parse: digestOfEtag },
  encodingOfEtag: { samples: [tag], parse: encodingOfEtag },
  parsePrecondition: {
    samples: [tag, '*', date],
    parse: (text) =>
      ['if-match', 'if-none-match', 'if-unmodified-since'].map((header) =>
        attempt(() => parsePrecondition({ [header]: text })),
      ),
  },
  parseRange: {
    samples: ['bytes=0-99', 'bytes = 5 - ', 'bytes=-5'],
    parse: (text) => parseRange(text, 1000),
  },
  ifRangeHolds: { samples: [tag, date], parse: (text) => ifRangeHolds(text, digest, 1) },
  parseContentRange: { samples: ['bytes 0-9/10'], parse: parseContentRange },
  queryValue: { samples: [query], parse: (text) => queryValue(text, 'last_modified') },
  queryVersion: { samples: [query], parse: queryVersion },
  requiredVersion: { samples: [query], parse: requiredVersion },
  parseListQuery: { samples: [query], parse: (text) => parseListQuery(text, '/') },
  parseTarget: {
    samples: ['/files/a/b%20c?x=1', '//list/a/', 'http://u:p@host:1/files/a', '/ft/files/a'],
    parse: (text) => [attempt(() => parseTarget(text)), parseTarget(text, '/ft')],
  },
  parseFileName: { samples: names, parse: parseFileName },
  parseDirectory: { samples: names, parse: parseDirectory },
  parseVersionedName: { samples: names, parse: parseVersionedName },
  encodeName: { samples: names, parse: (text) => encodeName(text.toWellFormed()) },
  parseNameLine: { samples: ['a/b.txt'], parse: (text) => parseNameLine(text, '/d/') },
  parseEntryLine: {
    samples: [`{"name":"/a","version":1,"size":1,"storedSize":1,"digest":"${digest}"}`],
    parse: parseEntryLine,
  },
  errorOfAnswer: {
    samples: ['{"detail":"text","code":"busy"}', '10', 'application/json; charset=utf-8'],
    parse: (text) =>
      ['application/json', 'text/plain', text].map((contentType) =>
        errorOfAnswer(
          { status: 503, contentType, exceptionLine: text, code: text, retryAfter: text, body: text },
          'get',
        ),
      ),
  },
  asOneLine: { samples: ['a\u017c'], parse: asOneLine },
  senderOf: { samples: ['2001:db8::1%eth0', '::ffff:192.0.2.1'], parse: senderOf },
  hasRepeatedHeader: {
    samples: ['Host\nx\nhost\ny\nAuthorization\nx'],
    parse: (text) => hasRepeatedHeader(text.split('\n')),
  },
  parseSizeBytes: { samples: ['1G512M', '1.5K'], parse: parseSizeBytes },
  parseDurationMs: { samples: ['1h30m', '1.5s'], parse: parseDurationMs },
  parseRights: { samples: ['read,write'], parse: parseRights },
  makeToken: {
    samples: ['judge', '/a/b/'],
    parse: (text) =>
      [
        { name: text, prefixes: ['/'] },
        { name: 'a', prefixes: [text] },
      ].map((wanted) => attempt(() => makeToken({ ...wanted, rights: ['read'] }, systemClock))),
  },
  isToken: { samples: [JSON.stringify(token)], parse: (text) => isToken(attempt(() => JSON.parse(text))) },
  TokenPrincipal: {
    samples: ['/a,/a/b,/c'],
    parse: (text) => new TokenPrincipal({ ...token, prefixes: text.split(',') }).listable('/'),
  },
  readServerConfig: {
    samples: ['/p=10G,5000', '/ft/x', 'http://host:9999/', '10G'],
    parse: (text) =>
      [{ quota: [text] }, { basePath: text }, { fallbackUrl: text }, { storeSizeMax: text }].map((flags) =>
        attempt(() => readServerConfig(flags, {})),
      ),
  },
  parseServerAddress: { samples: ['http://u:p@host:9999/ft/'], parse: parseServerAddress },
  componentMatcher: {
    samples: ['*a*[!b-c]?x', '[a-z]*'],
    parse: (text) => componentMatcher(text)('a'.repeat(255)),
  },
};

/** What a parser refuses costs as much as what it takes. @throws what is no error of ours. */
function attempt(parse: () => unknown): unknown {
  try {
    return parse();
  } catch (error) {
    if (isFiletrackerError(error) || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

describe('16 KiB of the nastiest input cost less than 5 ms of processor time', () => {
  it.each(Object.keys(parsers))('in %s()', { timeout: 300_000 }, (name) => {
    const { samples, parse } = parsers[name] ?? { samples: [], parse: () => undefined };
    expect(samples).not.toEqual([]);
    expect(tooDear(samples, (text) => attempt(() => parse(text)))).toBeUndefined();
  });

  it('in every function of the protocol that reads text', async () => {
    const missing: string[] = [];
    for (const file of readdirSync(join(sources, 'protocol')).filter((name) => !name.endsWith('.test.ts'))) {
      const exported: object = await import(join(sources, 'protocol', file));
      missing.push(
        ...Object.keys(exported).filter(
          (name) => /^(?:parse|read|query|required)/.test(name) && !(name in parsers),
        ),
      );
    }
    expect(missing).toEqual([]);
  });

  it('in every regular expression of the sources', { timeout: 300_000 }, () => {
    const { patterns } = patternsIn(sources);
    expect(patterns.length).toBeGreaterThan(50);
    const found = patterns.flatMap(({ place, pattern }) => {
      const dear = tooDear(samplesOf(pattern), (text) => text.replace(pattern, ''));
      return dear === undefined ? [] : [`${place}: ${dear}`];
    });
    expect(found).toEqual([]);
  });

  it('as no regular expression is made of what somebody gives', () => {
    // The one that is built is of a number that is a constant.
    expect(patternsIn(sources).built).toEqual(['client/cache/space.ts']);
  });
});

describe('nastyInputs()', () => {
  it('finds a pattern that is quadratic, and one that is cubic', () => {
    expect(tooDear(['/a/'], (text) => text.replace(/\/+$/, ''))).toBeDefined();
    expect(
      tooDear(['bytes=1-2'], (text) => /^\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*$/i.exec(text)),
    ).toBeDefined();
  });

  it('makes inputs of the size that is asked for', () => {
    for (const input of nastyInputs('bytes=1-2', nastySizeBytes)) {
      expect(Math.abs(input.length - nastySizeBytes)).toBeLessThan(64);
    }
  });
});
