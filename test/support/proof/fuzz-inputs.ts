import { crc32, gzipSync } from 'node:zlib';
import { encodeRecord, recordSizeBytes, type JournalRecord } from '../../../src/catalog/journal/record.ts';
import { encodeSegmentHeader, segmentHeaderSizeBytes } from '../../../src/catalog/journal/segment-header.ts';
import { digestOf } from '../../../src/core/digest.ts';
import { parseFileName } from '../../../src/core/file-name.ts';
import { contentOf } from './history.ts';
import type { Random } from './random.ts';

/** Pieces that mean something somewhere, and some that mean nothing anywhere. */
const pieces = [
  '/files/',
  '/list/',
  '/status',
  '/version/',
  '//',
  '/',
  '..',
  '.',
  '%2e%2e',
  '%2F',
  '%00',
  '%ff',
  '%',
  '%zz',
  '%c3%a4',
  'a',
  'ä',
  '\u{1f600}',
  '@',
  '@17',
  '@-1',
  '?last_modified=',
  '&',
  '=',
  '#',
  'Sun, 22 Nov 2026 15:05:01 GMT',
  '22 Nov 26',
  '32 Jan 2020 25:61:61',
  '+0100',
  '-0000',
  '-9999999999999',
  '1e309',
  'NaN',
  '0x10',
  '*',
  '"',
  'W/"x"',
  'bytes=',
  '0-0',
  '-1',
  '1-',
  '9007199254740993',
  'gzip',
  'GZIP;q=0',
  'identity;q=0.5',
  'br',
  ';q=',
  ',',
  ' ',
  '\t',
  '\u0000',
  '\u007f',
  '\ud800',
  'Bearer ',
  'Basic ',
  'YTpi',
  '='.repeat(40),
  'x'.repeat(300),
  '/d'.repeat(400),
  '1h',
  '512M',
  '-',
  '1G1K',
  '\r',
  '\n',
];

export function text(random: Random): string {
  let made = '';
  for (let count = random.below(6); count >= 0; count -= 1) {
    made += random.chance(0.85) ? random.pick(pieces) : String.fromCodePoint(random.below(0x3000));
  }
  return made;
}

/** Of the segments that are fuzzed. */
const fuzzSeed = { segment: 1, checksum: 0x1234_5678, mark: 0x9abc };

export function segmentOf(random: Random): Buffer {
  const parts: Buffer[] = [encodeSegmentHeader({ number: 1, createdMs: 1, previousEnd: 0, seed: fuzzSeed })];
  let at = segmentHeaderSizeBytes;
  for (let count = 1 + random.below(8); count > 0; count -= 1) {
    const bytes = contentOf(`${random.below(600)}-fuzz${random.below(50)}`);
    const common = { timeMs: random.below(1e12), version: random.below(100) };
    const name = parseFileName(`/n${random.below(20)}`);
    const blob = {
      digest: digestOf(bytes),
      encoding: 'identity',
      logicalSize: bytes.length,
      storedSize: bytes.length,
      content: { kind: 'inline', bytes },
      damaged: false,
    } as const;
    const record: JournalRecord = random.pick<JournalRecord>([
      { type: 'put', name, ...common, ...blob },
      { type: 'remove', name, ...common, origin: undefined },
      { type: 'blob', ...common, ...blob },
      { type: 'mark', timeMs: common.timeMs, digest: blob.digest, damaged: true },
    ]);
    const part = Buffer.alloc(recordSizeBytes(record));
    encodeRecord(record, part, 0, fuzzSeed, at);
    at += part.length;
    parts.push(part);
  }
  return Buffer.concat(parts);
}

/** Changes a byte, a number or a stretch; sometimes the checksum of a record is made right again. */
export function damage(bytes: Buffer, random: Random): void {
  const at = segmentHeaderSizeBytes + random.below(Math.max(1, bytes.length - segmentHeaderSizeBytes - 8));
  const manner = random.below(3);
  if (manner === 0) bytes[at] = random.below(256);
  if (manner === 1) bytes.writeUInt32LE(random.pick([0, 1, 7, 80, 65536, 0xffffffff]), at);
  if (manner === 2) bytes.fill(0, at, Math.min(bytes.length, at + random.below(200)));
  if (!random.chance(0.5)) return;
  const first = segmentHeaderSizeBytes;
  const length = bytes.readUInt32LE(first + 4);
  if (length >= 80 && first + length <= bytes.length) {
    bytes.writeUInt32LE(crc32(bytes.subarray(first + 4, first + length), fuzzSeed.checksum), first);
  }
}

const methods = ['GET', 'HEAD', 'PUT', 'DELETE', 'POST', 'OPTIONS', 'get', 'PUT'];
const headerNames = [
  'Content-Encoding',
  'SHA256-Checksum',
  'Logical-Size',
  'Content-Length',
  'Transfer-Encoding',
  'Accept-Encoding',
  'Range',
  'If-Range',
  'If-None-Match',
  'If-Match',
  'If-Modified-Since',
  'Expect',
  'Accept',
  'Authorization',
  'Connection',
  'Host',
  'X-Forwarded-For',
  'Upgrade',
];

/** What good values of headers begin with. */
const starts = [
  '',
  'bytes=',
  'bytes=0',
  'bytes=-',
  '"a"',
  'W/"',
  'gzip;q=',
  'Sun, 22 Nov 2026',
  'Basic ',
  'Bearer ft_',
];
const units = [' ', '\t', '0', 'a', ',', ', ', ';q=0', '=', '-', '"",', '%2', ':', '*', 'a, '];

export function requestOf(random: Random): Buffer {
  const method = random.pick(methods);
  const query = random.chance(0.6) ? '?last_modified=Sun,%2022%20Nov%202026%2015:05:01%20GMT' : '';
  const clean = (made: string): string => (random.chance(0.9) ? made.replaceAll(/[\r\n \0]/g, '') : made);
  const target = random.chance(0.5) ? `/files/f${random.below(5)}${query}` : clean(text(random));
  const lines = [`${method} ${target} HTTP/1.1`, 'Host: localhost'];
  for (let count = random.below(4); count > 0; count -= 1) {
    lines.push(`${random.pick(headerNames)}: ${clean(text(random))}`);
  }
  // Nearly all that headers may take together, of what parsers step over or try again.
  if (random.chance(0.3)) {
    const [start, unit, end] = [random.pick(starts), random.pick(units), random.pick([...starts, 'x', '"'])];
    const value = start + unit.repeat(Math.floor(14_000 / unit.length)) + end;
    lines.push(`${random.pick(headerNames)}: ${value}`);
  }
  let body: Buffer = Buffer.alloc(0);
  if (method === 'PUT') {
    const plain = contentOf(`${random.pick([0, 10, 3000, 40_000])}-body${random.below(9)}`);
    body = plain;
    if (random.chance(0.5)) {
      body = gzipSync(plain, { level: 1 });
      lines.push('Content-Encoding: gzip');
      for (let change = random.below(3); change > 0; change -= 1)
        body[random.below(body.length)] = random.below(256);
      if (random.chance(0.2)) body = body.subarray(0, random.below(body.length));
    }
    if (random.chance(0.5)) {
      lines.push('Transfer-Encoding: chunked');
      body = chunked(body, random);
    } else lines.push(`Content-Length: ${random.chance(0.8) ? body.length : random.below(100_000)}`);
  }
  return Buffer.concat([
    Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, random.chance(0.5) ? 'latin1' : 'utf8'),
    body,
  ]);
}

function chunked(bytes: Buffer, random: Random): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at < bytes.length;) {
    const size = Math.min(bytes.length - at, 1 + random.below(9000));
    const told = random.chance(0.97)
      ? size.toString(16)
      : random.pick(['', 'zz', '-1', 'ffffffffffffffff', `${size};x=y`, '0x1']);
    parts.push(
      Buffer.from(`${told}\r\n`),
      bytes.subarray(at, at + size),
      Buffer.from(random.chance(0.98) ? '\r\n' : 'x'),
    );
    at += size;
  }
  parts.push(
    Buffer.from(random.chance(0.95) ? '0\r\n\r\n' : random.pick(['0\r\nTrailer: x\r\n\r\n', '0', ''])),
  );
  return Buffer.concat(parts);
}
