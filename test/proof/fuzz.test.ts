import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { segmentPath } from '../../src/catalog/journal/segment-header.ts';
import { scanSegment } from '../../src/catalog/journal/segment.ts';
import { isDigest } from '../../src/core/digest.ts';
import { isFiletrackerError } from '../../src/core/errors.ts';
import { parseDirectory, parseFileName, parseVersionedName } from '../../src/core/file-name.ts';
import { parseDurationMs, parseSizeBytes } from '../../src/core/quantities.ts';
import { parseAuthorization } from '../../src/protocol/authorization.ts';
import { acceptedEncodings, parseContentEncoding } from '../../src/protocol/content-encoding.ts';
import { parseDate, readDate } from '../../src/protocol/dates.ts';
import { digestOfEtag, parseEntityTags } from '../../src/protocol/etags.ts';
import { parseListQuery, queryVersion } from '../../src/protocol/query.ts';
import { parseContentRange, parseRange } from '../../src/protocol/ranges.ts';
import { parseTarget } from '../../src/protocol/request-target.ts';
import { childrenOf, killGroup, programPath, startNode } from '../support/proof/child-program.ts';
import { contentOf } from '../support/proof/history.ts';
import { HttpStore } from '../support/proof/http-store.ts';
import { Random } from '../support/proof/random.ts';
import { damage, requestOf, segmentOf, text } from '../support/proof/fuzz-inputs.ts';
import { proofSeed, reportFigure, scaled } from '../support/proof/scale.ts';
import { ServerProgram } from '../support/proof/server-program.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const parsers: Readonly<Record<string, (text: string) => unknown>> = {
  readDate,
  parseDate,
  parseTarget: (made) => parseTarget(made),
  parseTargetBelow: (made) => parseTarget(`/files/${made}`, '/ft'),
  queryVersion,
  parseListQuery: (made) => parseListQuery(made, '/'),
  parseRange: (made) => parseRange(made, 100),
  parseContentRange,
  parseEntityTags,
  digestOfEtag,
  acceptedEncodings,
  parseContentEncoding,
  parseAuthorization,
  parseFileName,
  parseDirectory,
  parseVersionedName,
  parseDurationMs,
  parseSizeBytes,
  isDigest,
};

/** Processor time that a connection of a few requests may cost, with what the worker does beside it. */
const costMaxMs = 500;

/** Processor time of a process so far; the system counts it in ticks of 10 ms. */
function processorMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ');
  return 10 * (Number(fields[11]) + Number(fields[12]));
}

describe(`fuzz, seed ${proofSeed}`, { timeout: scaled(60_000, 1_800_000) }, () => {
  it('reads any text in no time, or refuses it with an error of its own', () => {
    const random = new Random(`${proofSeed}-text`);
    const rounds = scaled(4000, 60_000);
    for (let round = 0; round < rounds; round += 1) {
      const made = text(random);
      for (const [name, parser] of Object.entries(parsers)) {
        const startMs = performance.now();
        try {
          parser(made);
        } catch (error) {
          expect(isFiletrackerError(error), `${name}(${JSON.stringify(made)}): ${String(error)}`).toBe(true);
        }
        const tookMs = performance.now() - startMs;
        expect(tookMs, `${name}(${JSON.stringify(made)})`).toBeLessThan(500);
      }
    }
    reportFigure('fuzz of texts', `${rounds} texts through ${Object.keys(parsers).length} parsers`);
  });

  it('reads any segment to its end, or tells damage', async () => {
    const random = new Random(`${proofSeed}-segment`);
    const folder = await temporaryFolder();
    const rounds = scaled(150, 8000);
    for (let round = 0; round < rounds; round += 1) {
      const bytes = segmentOf(random);
      for (let change = random.below(4); change >= 0; change -= 1) damage(bytes, random);
      const cut = random.chance(0.3) ? bytes.subarray(0, random.below(bytes.length)) : bytes;
      writeFileSync(segmentPath(folder, 1), cut);
      const end = random.chance(0.5) ? cut.length : undefined;
      const onDamage = random.chance(0.5) ? (): void => undefined : undefined;
      try {
        let last = 0;
        for await (const batch of scanSegment(folder, 1, { end, onDamage })) {
          for (const { offset, record } of batch) {
            expect(offset).toBeGreaterThan(last);
            last = offset;
            expect(record.type).toMatch(/^(put|remove|blob|mark)$/);
          }
        }
      } catch (error) {
        expect(
          isFiletrackerError(error, 'corrupt-store'),
          `seed ${proofSeed}, round ${round}: ${String(error)}`,
        ).toBe(true);
      }
    }
    reportFigure('fuzz of segments', `${rounds} damaged segments read`);
  });

  it('answers any request, or cuts the connection, and stays as it was', async () => {
    const random = new Random(`${proofSeed}-http`);
    const folder = join(await temporaryFolder(), 'store');
    const server = await ServerProgram.start({
      folder,
      workers: 1,
      flags: ['--headers-timeout', '2s', '--stall-timeout', '2s'],
    });
    const port = server?.port ?? 0;
    const store = new HttpStore(port);
    onTestFinished(() => store.close());
    await store.put('/there', 1, contentOf('5000-there'));
    const [worker = 0] = childrenOf(server?.child.pid ?? 0);
    const rounds = scaled(250, 8000);
    let startBytes = 0;
    for (let round = 0; round < rounds; round += 1) {
      const sent = Buffer.concat(Array.from({ length: 1 + random.below(3) }, () => requestOf(random)));
      const beforeMs = processorMs(worker);
      const received = await exchange(port, sent);
      const costMs = processorMs(worker) - beforeMs;
      expect(
        costMs,
        `round ${round}: ${JSON.stringify(sent.toString('latin1').slice(0, 2000))}`,
      ).toBeLessThan(costMaxMs);
      const worst = [...received.toString('latin1').matchAll(/^HTTP\/1\.1 (\d{3})/gm)].map((match) =>
        Number(match[1]),
      );
      const failed = worst.filter((status) => status >= 500 && status !== 501 && status !== 505);
      expect(
        failed,
        `seed ${proofSeed}, round ${round}: ${JSON.stringify(sent.toString('latin1').slice(0, 2000))}`,
      ).toEqual([]);
      if (round === Math.floor(rounds / 3)) startBytes = residentBytes(worker);
    }
    expect((await store.get('/there')).body.equals(contentOf('5000-there'))).toBe(true);
    expect(childrenOf(server?.child.pid ?? 0)).toEqual([worker]);
    expect(residentBytes(worker) - startBytes).toBeLessThan(120 * 1024 * 1024);
    await server?.stop();
    reportFigure(
      'fuzz of requests',
      `${rounds} connections of broken requests; no 5xx, no hang, the worker lives`,
    );
  });

  it('says in one line what is wrong with any arguments', async () => {
    const random = new Random(`${proofSeed}-arguments`);
    const place = await temporaryFolder();
    mkdirSync(join(place, 'some'));
    const words = [
      '-p',
      '99999',
      '-l',
      '300.1.1.1',
      '-d',
      join(place, 'none/x'),
      join(place, 'some'),
      '--workers',
      '0',
      '--gc-grace',
      '1y',
      '-x',
      '--help',
      '--',
      '-',
      '',
      'get',
      'put',
      'rm',
      'version',
      'ls',
      '/a',
      'a@b@c',
      '/a@1',
      '-r',
      'http://127.0.0.1:1',
      'ftp://x',
      '-c',
      '/dev/null',
      '-s',
      '10Q',
      '-s',
      '1M',
      '-i',
      'never',
      '-f',
      '--json',
      '--dry-run',
      '--once',
      'token',
      'add',
      'backup',
      'restore',
      '\u0001',
      'ä',
      '%',
      'x'.repeat(3000),
    ];
    const programs = [
      'filetracker.cjs',
      'filetracker-server.cjs',
      'filetracker-migrate.js',
      'filetracker-recover.js',
      'filetracker-cache-cleaner.js',
    ];
    const rounds = scaled(10, 120);
    for (let round = 0; round < rounds; round += 1) {
      const args = Array.from({ length: random.below(6) }, () => random.pick(words));
      const program = programs[round % programs.length] ?? '';
      const environment = { FILETRACKER_DIR: join(place, 'home'), FILETRACKER_URL: '', XDG_DATA_HOME: place };
      const { child, ended } = startNode([programPath(program), ...args], environment);
      // One that has begun to serve or to clean has found nothing wrong.
      const running = setTimeout(() => killGroup(child), 4000);
      const { code, errors } = await ended;
      clearTimeout(running);
      const told = `${program} ${JSON.stringify(args)}: ${code} ${errors}`;
      if (code !== null) expect([0, 1, 2, 3, 4, 5], told).toContain(code);
      expect(errors, told).not.toMatch(/^\s+at .*:\d+:\d+/m);
      expect(errors, told).not.toMatch(/Warning:/);
    }
    reportFigure('fuzz of arguments', `${rounds} command lines`);
  });
});

/** Sends bytes, ends its side, and reads until the server ends; fails where it does not within a time. */
function exchange(port: number, bytes: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const received: Buffer[] = [];
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    const hanging = setTimeout(() => {
      socket.destroy();
      reject(new Error(`the server hangs after ${JSON.stringify(bytes.toString('latin1').slice(0, 2000))}`));
    }, 12_000);
    const over = (): void => {
      clearTimeout(hanging);
      resolve(Buffer.concat(received));
      socket.destroy();
    };
    socket.on('data', (piece: Buffer) => received.push(piece));
    socket.on('end', over).on('close', over).on('error', over);
    socket.end(bytes);
  });
}

function residentBytes(pid: number): number {
  const found = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(found?.[1] ?? 0) * 1024;
}
