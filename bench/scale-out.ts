import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { S3BlobStore } from '../src/blobs/s3/s3-blob-store.ts';
import { PostgresCatalog } from '../src/catalog/postgres/postgres-catalog.ts';
import { digestOf } from '../src/core/digest.ts';
import { parseFileName } from '../src/core/file-name.ts';
import { bucket, credentials, processorMs, startEngines, type Engines } from './engines.ts';
import { getRequest, load, putRequest } from './load.ts';
import { startServer, temporaryFolder, type RunningServer } from './processes.ts';
import { median, perSecond, rounded, type Row } from './table.ts';

const small = 4096;
const large = 1024 * 1024;
const sampleCount = 200;

/** Where the time goes on the scale-out store, and what each part takes of a processor. Figures only inform. */
export async function run(): Promise<readonly Row[]> {
  process.env['AWS_ACCESS_KEY_ID'] = credentials.accessKeyId;
  process.env['AWS_SECRET_ACCESS_KEY'] = credentials.secretAccessKey;
  await using folder = await temporaryFolder();
  await using engines = await startEngines(folder.path);
  const start = (name: string): Promise<RunningServer> =>
    startServer(join(folder.path, name), [
      '--workers',
      '1',
      '--catalog',
      engines.postgresUrl,
      '--blobs',
      `s3://${bucket}`,
      '--s3-endpoint',
      engines.s3Endpoint,
    ]);
  const rows: Row[] = [];
  await using first = await start('one');
  rows.push(...(await timeOfRequests(first, engines)));
  rows.push(...(await ratesOf('one server', [first], engines)));
  await using second = await start('two');
  rows.push(...(await ratesOf('two servers', [first, second], engines)));
  return rows;
}

function inform(name: string, figure: string): Row {
  return { name, figure, target: '', met: undefined };
}

async function medianMs(work: (index: number) => Promise<unknown>, count = sampleCount): Promise<number> {
  const times: number[] = [];
  for (let index = 0; index < count; index += 1) {
    const begun = performance.now();
    await work(index);
    times.push(performance.now() - begun);
  }
  return median(times);
}

/** One request at a time: the whole, and the same questions asked of the engines without a server. */
async function timeOfRequests(server: RunningServer, engines: Engines): Promise<Row[]> {
  const blobs = await S3BlobStore.open({ bucket, endpoint: engines.s3Endpoint, credentials });
  const catalog = await PostgresCatalog.open({ url: engines.postgresUrl, placer: blobs });
  const rows: Row[] = [];
  const tell = (name: string, whole: number, parts: Readonly<Record<string, number>>): void => {
    const rest = whole - Object.values(parts).reduce((sum, part) => sum + part, 0);
    const shares = Object.entries(parts).map(([part, ms]) => `${part} ${ms.toFixed(2)}`);
    rows.push(inform(name, `${whole.toFixed(2)} ms: ${shares.join(', ')}, ours ${rest.toFixed(2)}`));
  };
  const whole = (request: (index: number) => Buffer, count?: number): Promise<number> =>
    medianMs((index) => load(server.port, 1, 1, () => request(index)), count);
  try {
    const putSmall = await whole((index) => putRequest(`/files/t/small/${index}`, randomBytes(small)));
    const getSmall = await whole((index) => getRequest(`/files/t/small/${index}`));
    const find = await medianMs((index) => catalog.find(parseFileName(`/t/small/${index}`)));
    const findBlob = await medianMs(() => catalog.findBlob(digestOf(randomBytes(8))));
    const putRow = await medianMs((index) => {
      const bytes = randomBytes(small);
      return catalog.put({
        name: parseFileName(`/t/direct/${index}`),
        version: 1,
        digest: digestOf(bytes),
        logicalSize: small,
        storedSize: small,
        encoding: 'identity',
        content: { kind: 'inline', bytes },
      });
    });
    tell('GET of 4 KiB, one at a time', getSmall, { PostgreSQL: find, S3: 0 });
    tell('PUT of 4 KiB unique, one at a time', putSmall, { PostgreSQL: findBlob + putRow, S3: 0 });

    const count = 60;
    const putLarge = await whole((index) => putRequest(`/files/t/large/${index}`, randomBytes(large)), count);
    const getLarge = await whole((index) => getRequest(`/files/t/large/${index}`), count);
    const keys: string[] = [];
    const putObject = await medianMs(async () => {
      const bytes = randomBytes(large);
      const upload = await blobs.stage();
      await upload.write(bytes);
      await upload.seal();
      const placement = { stagedId: upload.stagedId, digest: digestOf(bytes), encoding: 'identity' } as const;
      keys.push(...(await blobs.place([placement])));
    }, count);
    const getObject = await medianMs(async (index) => {
      const stream = await blobs.open(keys[index] ?? '');
      for await (const _chunk of stream ?? []);
    }, count);
    tell('GET of 1 MiB, one at a time', getLarge, { PostgreSQL: find, S3: getObject });
    tell('PUT of 1 MiB unique, one at a time', putLarge, {
      PostgreSQL: 2 * findBlob + putRow,
      S3: putObject,
    });
  } finally {
    await catalog.close();
    await blobs.close();
  }
  return rows;
}

/** Many at once: requests a second, and processor time of each part for one request. */
async function ratesOf(title: string, servers: readonly RunningServer[], engines: Engines): Promise<Row[]> {
  const pids = servers.map((server) => server.process.pid ?? 0);
  const groups = { ours: pids, ...engines.roots } as const;
  const names = Object.keys(groups) as (keyof typeof groups)[];
  const atOnce = 32 / servers.length;
  const measure = async (
    name: string,
    count: number,
    request: (server: number, index: number) => Buffer,
  ): Promise<Row> => {
    const before = names.map((group) => processorMs(groups[group]));
    const begun = performance.now();
    await Promise.all(
      servers.map((server, at) =>
        load(server.port, atOnce, count / servers.length, (index) => request(at, index)),
      ),
    );
    const elapsed = performance.now() - begun;
    const parts = names.map((group, at) => {
      const spent = (processorMs(groups[group]) - (before[at] ?? 0)) / count;
      return `${group} ${(spent * 1000).toFixed(0)}`;
    });
    const rate = rounded(perSecond(count, elapsed));
    return inform(`${name}, 32 at once, ${title}`, `${rate}/s; processor µs a request: ${parts.join(', ')}`);
  };
  const files = 1000;
  const body = randomBytes(large);
  const unique = (server: number, index: number): Buffer => {
    body.writeUInt32LE(index, 0);
    body.writeUInt32LE(server, 4);
    body.write(title, 8);
    return body;
  };
  const where = `/files/${servers.length}`;
  return [
    await measure('PUT of 4 KiB unique', 6000, (at, index) =>
      putRequest(`${where}/${at}/small/${index}`, randomBytes(small)),
    ),
    await measure('GET of 4 KiB', 20_000, (at, index) => getRequest(`${where}/${at}/small/${index % files}`)),
    await measure('PUT of a content that is stored, by another name', 6000, (at, index) =>
      putRequest(`${where}/${at}/same/${index}`, Buffer.alloc(small, title)),
    ),
    await measure('PUT of 1 MiB unique', 200, (at, index) =>
      putRequest(`${where}/${at}/large/${index}`, unique(at, index)),
    ),
    await measure('GET of 1 MiB', 1000, (at, index) => getRequest(`${where}/${at}/large/${index % 50}`)),
  ];
}
