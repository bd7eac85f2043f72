import { execFile, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Client } from '../src/client/client.ts';
import { programPath, projectRoot, startServer, temporaryFolder } from './processes.ts';
import { atMostRow, median, perSecond, ratioRow, rounded, type Row } from './table.ts';

const runFile = promisify(execFile);

const smallFiles = 500;
const uncachedFiles = 6000;
const largeBytes = 256 * 1024 * 1024;
const coldStarts = 15;
const largeRounds = 3;

/** Milliseconds that `work` takes. */
async function timed(work: () => unknown): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

/** What filetracker needs to start and serve one cached file, against what Node needs to start and do nothing. */
async function coldStart(folder: string): Promise<Row> {
  const cacheDir = join(folder, 'cold');
  const local = join(folder, 'cold-file');
  writeFileSync(local, 'a small file\n');
  await using client = new Client({ cacheDir });
  const { versionedName } = await client.putFile('/cold/file', local);
  const words = [programPath('filetracker'), '-c', cacheDir, 'get', versionedName, join(folder, 'cold-out')];
  const times = { node: [] as number[], get: [] as number[] };
  for (let round = 0; round < coldStarts; round += 1) {
    times.node.push(await timed(() => runFile(process.execPath, ['-e', '0'])));
    times.get.push(await timed(() => runFile(process.execPath, words)));
  }
  // The least of many: what else runs on the machine only adds.
  const [node, get] = [Math.min(...times.node), Math.min(...times.get)];
  const figures = `${get.toFixed(0)} ms against ${node.toFixed(0)} ms`;
  return atMostRow(
    'cold start of `filetracker get` of a cached file / `node -e 0`',
    get / node,
    1.8,
    figures,
  );
}

/** Stores files of 100 B to 8 KiB on the server; gives their versioned names. */
async function storeSmall(url: string, folder: string, count: number): Promise<string[]> {
  await using client = new Client({ remoteUrl: url });
  const local = join(folder, 'small');
  mkdirSync(local);
  const names: string[] = [];
  let next = 0;
  const store = async (): Promise<void> => {
    while (next < count) {
      const index = (next += 1);
      const path = join(local, `${index}`);
      writeFileSync(path, `${index} `.repeat(20 + ((index * 37) % 1600)));
      names.push((await client.putFile(`/small/${index % 50}/${index}@1700000000`, path)).versionedName);
    }
  };
  await Promise.all(Array.from({ length: 16 }, store));
  return names;
}

async function smallGets(url: string, folder: string): Promise<Row[]> {
  const names = await storeSmall(url, folder, uncachedFiles);
  const target = join(folder, 'small-out');
  mkdirSync(target);
  await using client = new Client({ remoteUrl: url, cacheDir: join(folder, 'small-cache'), cacheSize: '1G' });
  const queue = [...names];
  const uncached = await timed(() =>
    Promise.all(
      Array.from({ length: 16 }, async () => {
        for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
          await client.getFile(name, join(target, `${queue.length}`));
        }
      }),
    ),
  );
  const rounds: number[] = [];
  for (let round = 0; round < 5; round += 1) {
    rounds.push(
      await timed(async () => {
        for (const [index, name] of names.slice(0, smallFiles).entries()) {
          await client.getFile(name, join(target, `${round}-${index}`));
        }
      }),
    );
  }
  const rate = perSecond(names.length, uncached);
  return [
    atMostRow('get of a small cached file through the API, ms', median(rounds) / smallFiles, 0.3),
    {
      name: 'gets of small files that are not cached, 16 at once, a second',
      figure: rounded(rate),
      target: 'at least 2,000',
      met: rate >= 2000,
    },
  ];
}

/** Source text of the dependencies, as much as asked for; pieces from all over where there is not enough. */
async function writeText(path: string, sizeBytes: number): Promise<void> {
  const sources: Buffer[] = [];
  let gathered = 0;
  for (const item of readdirSync(join(projectRoot, 'node_modules'), { recursive: true, encoding: 'utf8' })) {
    if (gathered >= sizeBytes) break;
    if (!/\.(?:js|mjs|cjs|ts|md|map|json)$/.test(item)) continue;
    const source = join(projectRoot, 'node_modules', item);
    if (!statSync(source).isFile()) continue;
    sources.push(readFileSync(source));
    gathered += sources.at(-1)?.length ?? 0;
  }
  const corpus = Buffer.concat(sources);
  await using file = await open(path, 'w');
  let written = 0;
  for (let offset = 0; written < sizeBytes; offset = (offset * 7 + 104_729) % corpus.length) {
    const piece = written === 0 ? corpus : corpus.subarray(offset, offset + 20_000);
    await file.write(piece);
    written += piece.length;
  }
  truncateSync(path, sizeBytes);
}

async function writeRandom(path: string, sizeBytes: number): Promise<void> {
  await using file = await open(path, 'w');
  for (let written = 0; written < sizeBytes; written += 1 << 24) await file.write(randomBytes(1 << 24));
}

/** Runs a line of shell, and fails if it does. */
async function shell(line: string): Promise<void> {
  await runFile('bash', ['-o', 'pipefail', '-ec', line], { maxBuffer: 1 << 24 });
}

const date = encodeURIComponent('Tue, 14 Nov 2023 22:13:20 GMT');

/** Ratio of speeds: how much faster the second is than the first; the best of a few rounds of each, in turns. */
async function compare(
  theirs: (round: number) => string,
  ours: (round: number) => string,
): Promise<{ ratio: number; figures: string }> {
  const times = { theirs: [] as number[], ours: [] as number[] };
  for (let round = 0; round < largeRounds; round += 1) {
    times.theirs.push(await timed(() => shell(theirs(round))));
    times.ours.push(await timed(() => shell(ours(round))));
  }
  const [other, own] = [Math.min(...times.theirs), Math.min(...times.ours)];
  return {
    ratio: other / own,
    figures: `${(own / 1000).toFixed(2)} s against ${(other / 1000).toFixed(2)} s`,
  };
}

async function largeTransfers(url: string, folder: string): Promise<Row[]> {
  const [text, random] = [join(folder, 'text'), join(folder, 'random')];
  await writeText(text, largeBytes);
  await writeRandom(random, largeBytes);
  const node = `'${process.execPath}' '${programPath('filetracker')}' -q -r ${url}`;
  const out = join(folder, 'large-out');
  /** A different content each time, so that nothing is saved by what is stored already. */
  const change = (path: string, round: string): string =>
    `printf '%-32s' '${round} ${Date.now()}' | dd of='${path}' conv=notrunc status=none`;
  const put = async (
    path: string,
    kind: string,
    command: string,
  ): Promise<{ ratio: number; figures: string }> =>
    await compare(
      (round) =>
        `${change(path, `curl ${round}`)}; ${command} '${url}/files/curl/${kind}?last_modified=${date}' >'${out}.answer'`,
      (round) =>
        `${change(path, `own ${round}`)}; ${node} put --no-local-cache '${path}' /own/${kind} >'${out}.answer'`,
    );
  const get = async (kind: string): Promise<{ ratio: number; figures: string }> =>
    await compare(
      () => `rm -f '${out}'; curl -sf --compressed -o '${out}' ${url}/files/own/${kind}`,
      (round) =>
        `rm -f '${out}'; ${node} -c '${folder}/large-cache-${kind}-${round}' get /own/${kind} '${out}'`,
    );
  const textPut = await put(text, 'text', `gzip -9 <'${text}' | curl -sf -T - -H 'Content-Encoding: gzip'`);
  const randomPut = await put(random, 'random', `curl -sf -T '${random}'`);
  const textGet = await get('text');
  if (spawnSync('cmp', [text, out]).status !== 0) throw new Error('the text came back changed');
  const randomGet = await get('random');
  if (spawnSync('cmp', [random, out]).status !== 0) throw new Error('the random bytes came back changed');
  for (const path of [text, random, out]) rmSync(path);
  return [
    ratioRow('put of 256 MiB of text / `gzip -9 | curl -T -`', textPut.ratio, 2.5, textPut.figures),
    ratioRow('put of 256 MiB of random bytes / `curl -T`', randomPut.ratio, 0.5, randomPut.figures),
    ratioRow('get of 256 MiB of text, verified / `curl --compressed`', textGet.ratio, 0.7, textGet.figures),
    ratioRow('get of 256 MiB of random bytes, verified / `curl`', randomGet.ratio, 0.7, randomGet.figures),
  ];
}

/** What the client costs its user. */
export async function run(): Promise<readonly Row[]> {
  await using folder = await temporaryFolder();
  await using server = await startServer(join(folder.path, 'store'));
  const url = `http://127.0.0.1:${server.port}`;
  return [
    await coldStart(folder.path),
    ...(await smallGets(url, folder.path)),
    ...(await largeTransfers(url, folder.path)),
  ];
}
