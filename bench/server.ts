import { createHash, randomBytes } from 'node:crypto';
import { mkdir, open, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { getRequest, load, putRequest } from './load.ts';
import { startBareServer, startServer, temporaryFolder } from './processes.ts';
import { median, perSecond, ratioRow, rounded, type Row } from './table.ts';
import { measureDiskUse } from './disk-use.ts';

const small = 4096;
const large = 1024 * 1024;
const rounds = 3;

/** What the issue of the server asks to be shown, each as a ratio to a yardstick measured beside it. */
export async function run(): Promise<readonly Row[]> {
  const rows: Row[] = [];
  await using folder = await temporaryFolder();
  {
    // One worker, as the yardsticks are one process each.
    await using server = await startServer(join(folder.path, 'store'), ['--workers', '1']);
    rows.push(...(await smallReads(server.port)));
    rows.push(...(await smallWrites(server.port, folder.path)));
    rows.push(...(await repeatedContent(server.port)));
    rows.push(await largeReads(server.port, folder.path));
    rows.push(await listing(server.port));
  }
  rows.push(...(await measureDiskUse(folder.path)));
  return rows;
}

async function smallReads(port: number): Promise<Row[]> {
  const files = 1000;
  const content = (index: number): Buffer =>
    Buffer.concat([Buffer.from(`file ${index}`), randomBytes(small)]).subarray(0, small);
  await load(port, 16, files, (index) => putRequest(`/files/bench/get/${index}`, content(index)));
  // The same answer: the same number of bytes under the same headers, made once.
  const answer = await fetch(`http://127.0.0.1:${port}/files/bench/get/0`);
  await answer.arrayBuffer();
  const ofConnection = new Set(['date', 'connection', 'keep-alive']);
  const headers = [...answer.headers].filter(([name]) => !ofConnection.has(name)).flat();
  await using bare = await startBareServer(`
    const body = require('node:crypto').randomBytes(${small});
    const headers = ${JSON.stringify(headers)};
    const answer = (request, response) => { response.writeHead(200, headers); response.end(request.method === 'HEAD' ? undefined : body); };`);
  const requests = 60_000;
  const rate = async (target: number, method: string): Promise<number> => {
    const all = Array.from({ length: files }, (_, index) =>
      getRequest(`/files/bench/get/${index}`, '', method),
    );
    const fallback = Buffer.alloc(0);
    const options = { head: method === 'HEAD' };
    const result = await load(target, 16, requests, (index) => all[index % files] ?? fallback, options);
    return perSecond(result.count, result.milliseconds);
  };
  const rows: Row[] = [];
  for (const method of ['GET', 'HEAD']) {
    const ours: number[] = [];
    const theirs: number[] = [];
    for (let round = 0; round < rounds; round++) {
      theirs.push(await rate(bare.port, method));
      ours.push(await rate(port, method));
    }
    const more = `${rounded(median(ours))}/s against ${rounded(median(theirs))}/s`;
    rows.push(
      ratioRow(
        `${method} of 4 KiB, 16 at once, against a bare node:http server`,
        median(ours) / median(theirs),
        0.7,
        more,
      ),
    );
  }
  return rows;
}

/** How fast Node itself creates, writes, fsyncs and renames files of 4 KiB. */
async function nodeFiles(folder: string, atOnce: number, count: number): Promise<number> {
  await mkdir(folder, { recursive: true });
  let next = 0;
  const started = performance.now();
  const worker = async (): Promise<void> => {
    while (next < count) {
      const index = next++;
      const path = join(folder, String(index));
      const file = await open(`${path}.new`, 'w');
      await file.writeFile(randomBytes(small));
      await file.sync();
      await file.close();
      await rename(`${path}.new`, path);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  return perSecond(count, performance.now() - started);
}

let written = 0;
async function smallPuts(
  port: number,
  atOnce: number,
  count: number,
  body: () => Buffer,
  headers = '',
): Promise<number> {
  const requests = Array.from({ length: count }, () =>
    putRequest(`/files/bench/put/${written % 100}/${written++}`, body(), headers),
  );
  const fallback = Buffer.alloc(0);
  const result = await load(port, atOnce, count, (index) => requests[index] ?? fallback);
  return perSecond(result.count, result.milliseconds);
}

async function smallWrites(port: number, folder: string): Promise<Row[]> {
  const rows: Row[] = [];
  const bodies: readonly [string, () => Buffer, string][] = [
    ['random bytes', () => randomBytes(small), ''],
    [
      'text, sent gzipped as clients do',
      () => gzipSync(randomBytes(small / 2).toString('hex')),
      'Content-Encoding: gzip\r\n',
    ],
    ['text, sent plain', () => Buffer.from(randomBytes(small / 2).toString('hex')), ''],
  ];
  for (const [atOnce, count, target] of [
    [16, 6000, 1.5],
    [1, 1200, 1.3],
  ] as const) {
    for (const [kind, body, headers] of bodies) {
      const ours: number[] = [];
      const theirs: number[] = [];
      for (let round = 0; round < rounds; round++) {
        theirs.push(await nodeFiles(join(folder, `files-${written}-${round}`), atOnce, count));
        ours.push(await smallPuts(port, atOnce, count, body, headers));
      }
      const name = `PUT of 4 KiB (${kind}), unique, durable, ${atOnce === 1 ? 'one at a time' : '16 at once'}, against Node's create + write + fsync + rename`;
      const more = `${rounded(median(ours))}/s against ${rounded(median(theirs))}/s`;
      rows.push(ratioRow(name, median(ours) / median(theirs), target, more));
    }
  }
  return rows;
}

/**
 * A content that is stored already, as it comes from who sends it all the same, and from who says its digest and asks
 * first, as our client does: he need not send it.
 */
async function repeatedContent(port: number): Promise<Row[]> {
  const count = 60;
  const known = randomBytes(large);
  const fallback = Buffer.alloc(0);
  const digest = createHash('sha256').update(known).digest('hex');
  const asking = `Expect: 100-continue\r\nSHA256-Checksum: ${digest}\r\nLogical-Size: ${large}\r\n`;
  const headOf = (request: Buffer): Buffer => request.subarray(0, request.length - large);
  let made = 0;
  const rate = async (request: (path: string) => Buffer, closes = false): Promise<number> => {
    const requests = Array.from({ length: count }, () => request(`/files/bench/mebibyte/${made++}`));
    const result = await load(port, 4, count, (index) => requests[index] ?? fallback, { closes });
    return perSecond(count, result.milliseconds);
  };
  await load(port, 1, 1, () => putRequest('/files/bench/known', known));
  const ofNew: number[] = [];
  const ofKnown: number[] = [];
  const ofAsked: number[] = [];
  for (let round = 0; round < rounds; round++) {
    ofNew.push(await rate((path) => putRequest(path, randomBytes(large))));
    ofKnown.push(await rate((path) => putRequest(path, known)));
    ofAsked.push(await rate((path) => headOf(putRequest(path, known, asking)), true));
  }
  const row = (how: string, rates: readonly number[]): Row =>
    ratioRow(
      `PUT of 1 MiB that is stored already, ${how}, against a new one`,
      median(rates) / median(ofNew),
      3,
      `${rounded(median(rates))}/s against ${rounded(median(ofNew))}/s`,
    );
  return [row('sent all the same', ofKnown), row('after asking with Expect: 100-continue', ofAsked)];
}

async function largeReads(port: number, folder: string): Promise<Row> {
  const content = randomBytes(large);
  const path = join(folder, 'one-mebibyte');
  await writeFile(path, content);
  await load(port, 1, 1, () => putRequest('/files/bench/large', content));
  await using bare = await startBareServer(`
    const answer = (request, response) => {
      response.writeHead(200, { 'Content-Length': ${large} });
      fs.createReadStream(${JSON.stringify(path)}).pipe(response);
    };`);
  const request = getRequest('/files/bench/large');
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let round = 0; round < rounds; round++) {
    theirs.push(perSecond(1500, (await load(bare.port, 16, 1500, () => request)).milliseconds));
    ours.push(perSecond(1500, (await load(port, 16, 1500, () => request)).milliseconds));
  }
  const more = `${rounded(median(ours))}/s against ${rounded(median(theirs))}/s`;
  return ratioRow(
    'GET of 1 MiB, 16 at once, against a bare file stream',
    median(ours) / median(theirs),
    0.8,
    more,
  );
}

async function listing(port: number): Promise<Row> {
  const names = 100_000;
  const body = Buffer.from('x');
  const paths = (index: number): string => `/files/bench/list/${index % 317}/directory/file-${index}.txt`;
  await load(port, 64, names, (index) => putRequest(paths(index), body));
  const rates: number[] = [];
  for (let round = 0; round < 5; round++) {
    const { milliseconds } = await load(port, 1, 1, () => getRequest('/list/bench/list'));
    rates.push(perSecond(names, milliseconds));
  }
  const rate = median(rates);
  return {
    name: 'List of 100,000 names, names a second',
    figure: rounded(rate),
    target: 'at least 400,000',
    met: rate >= 400_000,
  };
}
