import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { describe, expect, it, onTestFinished } from 'vitest';
import { digestOf, type Digest } from '../../src/core/digest.ts';
import { isFiletrackerError } from '../../src/core/errors.ts';
import type { StoreLimits } from '../../src/store/file-store.ts';
import { noise, pieces, prose } from '../support/contents.ts';
import { embeddedFileStore, leftovers, nameOf, read, type FileStoreParts } from '../support/file-stores.ts';
import { fc } from '../support/properties.ts';

const mib = 1024 * 1024;

/** The ways of a gzip body through the store, which differ in nothing that a client sees. */
const paths: Readonly<Record<string, Partial<StoreLimits>>> = {
  'in one buffer': {},
  'in blocks': { bufferedGzipBodyMaxBytes: 0 },
  'in pieces': { bufferedGzipBodyMaxBytes: 0, bufferedBodiesTotalMaxBytes: 0 },
  'in memory until it is short': { bufferedBodiesTotalMaxBytes: 400_000 },
};

const contents = [0, 1, 65_535, 65_536, 300_000, mib, 2 * mib + 12_345].flatMap((sizeBytes) => [
  noise(sizeBytes),
  prose(sizeBytes),
]);
const bodies = contents.map((content) => gzipSync(content, { level: 1 }));
const member = gzipSync(prose(1_000));

/** A gzip body with at most one fault. */
interface SentBody {
  readonly bytes: Buffer;
  readonly announcedSize: number;
  readonly claims: { readonly digest?: Digest | undefined; readonly logicalSize?: number | undefined };
}

const faults = [
  'none',
  'cut',
  'flipped',
  'garbage',
  'zeros',
  'member',
  'size',
  'digest',
  'short',
  'long',
] as const;
type Fault = (typeof faults)[number];

function sentBody(index: number, fault: Fault, at: number, claimed: boolean): SentBody {
  const content = contents[index] ?? Buffer.alloc(0);
  const body = bodies[index] ?? Buffer.alloc(0);
  const claims = claimed ? { digest: digestOf(content), logicalSize: content.length } : {};
  const bytes = faultyBytes(body, fault, at);
  const announcedSize = bytes.length + (fault === 'short' ? 1 : fault === 'long' ? -1 : 0);
  if (fault === 'size')
    return {
      bytes,
      announcedSize,
      claims: { logicalSize: content.length + (at > 0.5 || content.length === 0 ? 1 : -1) },
    };
  if (fault === 'digest') return { bytes, announcedSize, claims: { digest: digestOf(member) } };
  return { bytes, announcedSize, claims };
}

function faultyBytes(body: Buffer, fault: Fault, at: number): Buffer {
  const index = Math.floor(at * body.length);
  const flipped = Buffer.from([(body[index] ?? 0) ^ 0xff]);
  const faulty: Partial<Record<Fault, Buffer>> = {
    cut: body.subarray(0, index),
    flipped: Buffer.concat([body.subarray(0, index), flipped, body.subarray(index + 1)]),
    garbage: Buffer.concat([body, Buffer.from('garbage')]),
    zeros: Buffer.concat([body, Buffer.alloc(1 + Math.floor(at * 2_000))]),
    member: Buffer.concat([body, member]),
  };
  return faulty[fault] ?? body;
}

/** What the sender learns, and the bytes that are stored. */
async function outcome({ store }: FileStoreParts, name: string, sent: SentBody, pieceSizeBytes: number) {
  // Own memory for each piece, because it is freed.
  const own = Array.from(pieces(sent.bytes, pieceSizeBytes), (piece) =>
    Uint8Array.prototype.slice.call(piece),
  );
  const source = Readable.from(
    own.map((piece) => Buffer.from(piece.buffer)),
    { objectMode: false },
  );
  const { claims, announcedSize } = sent;
  const body = { source, encoding: 'gzip', announcedSize, freesPieces: true } as const;
  try {
    const { stored, deduplicated } = await store.put({ name: nameOf(name), version: 1, claims }, body);
    const bytes = await read(store, name, { form: 'stored' });
    return { stored, deduplicated, bytes: bytes && digestOf(bytes) };
  } catch (error) {
    if (!isFiletrackerError(error)) throw error;
    // A body that was decoded whole says how large it is; another is given up when it is too large.
    return {
      code: error.code,
      message: error.message.replace(/it has \d+ bytes|it is larger/, 'wrong size'),
    };
  }
}

describe('a gzip body', () => {
  it('has the same outcome and the same stored bytes on every way through the store', async () => {
    const parts: FileStoreParts[] = [];
    for (const limits of Object.values(paths)) {
      const opened = await embeddedFileStore({ limits });
      onTestFinished(() => opened.close());
      parts.push(opened);
    }
    const codes = new Set<unknown>();
    let puts = 0;
    const fault = fc.constantFrom(...faults);
    const property = fc.asyncProperty(
      fc.nat({ max: contents.length - 1 }),
      fault,
      fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
      fc.boolean(),
      fc.constantFrom(10_007, 65_536, 600_000),
      async (index, fault, at, claimed, pieceSizeBytes) => {
        puts += 1;
        const sent = sentBody(index, fault, at, claimed);
        const outcomes = [];
        for (const part of parts) outcomes.push(await outcome(part, `/${puts}`, sent, pieceSizeBytes));
        const [first] = outcomes;
        expect(outcomes).toEqual(outcomes.map(() => first));
        codes.add(first?.code);
        // Some bytes of a header may be any, and several members are one content.
        const mayBeSound = fault === 'flipped' || fault === 'member';
        if (!mayBeSound) expect(first?.code === undefined).toBe(fault === 'none');
      },
    );
    await fc.assert(property, { numRuns: 120 });
    expect([...codes]).toEqual(
      expect.arrayContaining([
        undefined,
        'corrupt-encoding',
        'size-mismatch',
        'digest-mismatch',
        'truncated-body',
      ]),
    );
    for (const part of parts) {
      expect((await leftovers(part)).uploads).toBe(0);
      expect(part.problems).toEqual([]);
    }
  }, 120_000);
});
