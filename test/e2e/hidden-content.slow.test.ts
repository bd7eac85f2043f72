import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { noise, prose } from '../support/contents.ts';
import { RawConnection } from '../support/raw-http.ts';
import { openTestServer, versionQuery, type TestServer } from '../support/test-server.ts';
import { makeTokens } from '../support/tokens.ts';

const digestOf = (content: Buffer): string => createHash('sha256').update(content).digest('hex');

/** How a prober asks about `guess`, having it or not. */
interface Probe {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  /** How the body is framed; its length unless given. */
  readonly chunked?: boolean;
  readonly expect?: boolean;
}

const chunk = (body: Buffer): Buffer =>
  Buffer.concat([Buffer.from(`${body.length.toString(16)}\r\n`), body, Buffer.from('\r\n0\r\n\r\n')]);

/** Every way of asking that seems worth a try, made when it is. `other` is of the same size, and is what is sent in place of the guess. */
function probesOf(guess: Buffer, other: Buffer): Readonly<Record<string, () => Probe>> {
  const digest = { 'SHA256-Checksum': digestOf(guess) };
  const size = { 'Logical-Size': String(guess.length) };
  const wrongSize = { 'Logical-Size': String(guess.length + 1) };
  const gzip = { 'Content-Encoding': 'gzip' };
  const etag = `"${digestOf(guess)}"`;
  return {
    'the guess itself': () => ({ headers: digest, body: guess }),
    'and chunked': () => ({ headers: { ...digest, ...size }, body: guess, chunked: true }),
    'and gzipped': () => ({ headers: { ...digest, ...gzip }, body: gzipSync(guess) }),
    'without a claim': () => ({ headers: {}, body: guess }),
    'asking first': () => ({ headers: digest, body: guess, expect: true }),
    'asking first, gzipped': () => ({
      headers: { ...digest, ...size, ...gzip },
      body: gzipSync(guess),
      expect: true,
    }),
    'asking first, with another size': () => ({
      headers: { ...digest, ...wrongSize, ...gzip },
      body: gzipSync(guess),
      expect: true,
    }),
    'another content under its digest': () => ({ headers: digest, body: other }),
    'and so, chunked': () => ({ headers: digest, body: other, chunked: true }),
    'and so, asking first': () => ({ headers: { ...digest, ...size }, body: other, expect: true }),
    'another size': () => ({ headers: { ...digest, ...wrongSize, ...gzip }, body: gzipSync(guess) }),
    'another size, chunked': () => ({ headers: { ...digest, ...wrongSize }, body: guess, chunked: true }),
    'nothing at all': () => ({ headers: { ...digest, ...size }, body: Buffer.alloc(0), chunked: true }),
    'no gzip': () => ({ headers: { ...digest, ...gzip }, body: other }),
    'a condition on it': () => ({ headers: { ...digest, 'If-None-Match': etag }, body: guess }),
    'a condition that it be there': () => ({ headers: { ...digest, 'If-Match': etag }, body: guess }),
    'a condition on a new name': () => ({ headers: { ...digest, 'If-None-Match': '*' }, body: guess }),
  };
}

/** All that is answered, but for what tells one request from another. */
async function answersTo(
  server: TestServer,
  name: string,
  secret: string,
  probe: Probe,
): Promise<readonly string[]> {
  const connection = await RawConnection.open(server.port);
  const { headers, body, chunked = false, expect: asks = false } = probe;
  const framing = chunked ? 'Transfer-Encoding: chunked' : `Content-Length: ${body.length}`;
  const lines = Object.entries(headers).map(([key, value]) => `${key}: ${value}\r\n`);
  const head = `PUT /files${name}?${versionQuery()} HTTP/1.1\r\nHost: x\r\n${framing}\r\nAuthorization: Bearer ${secret}\r\n`;
  connection.send(`${head}${lines.join('')}${asks ? 'Expect: 100-continue\r\n' : ''}\r\n`);
  const answers: string[] = [];
  const receive = async (): Promise<number> => {
    const { status, headers: told, text } = await connection.answer('PUT');
    const kept = [...told].filter(([key]) => key !== 'date');
    answers.push(`${status} ${JSON.stringify(kept)} ${text}`.replaceAll(/[0-9a-f]{64}/g, 'DIGEST'));
    return status;
  };
  if (asks && (await receive()) !== 100) return answers;
  connection.send(chunked ? chunk(body) : body);
  await receive();
  return answers;
}

describe('what a token may not read', () => {
  it.each([
    ['small', 3000],
    ['collected', 200_000],
    ['streamed', 1_500_000],
  ])('it cannot find out by uploads: %s', async (_kind, sizeBytes) => {
    const tokens = makeTokens({ root: ['/', 'read', 'write'], prober: ['/p', 'read', 'write'] });
    const server = await openTestServer({ access: tokens.access });
    for (const make of [noise, prose]) {
      const stored = make(sizeBytes, 'the secret');
      const other = make(sizeBytes, 'sent instead');
      await server.put(`/secret/${make.name}`, stored, { headers: tokens.header('root') });
      for (const [way, probe] of Object.entries(probesOf(stored, other))) {
        const name = `/p/${make.name}/${way.replaceAll(' ', '_')}`;
        // Another one each time, or it would be stored by the second way.
        const asked = probesOf(make(sizeBytes, way), other)[way] ?? probe;
        const answers = await answersTo(server, `${name}/1`, tokens.text('prober'), probe());
        const expected = await answersTo(server, `${name}/2`, tokens.text('prober'), asked());
        const told = (all: readonly string[]): readonly string[] =>
          all.map((answer) => answer.replaceAll(/\/[12](?=\\?")/g, '/N'));
        expect([way, told(answers)]).toEqual([way, told(expected)]);
      }
    }
  });
});
