import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { childrenOf } from '../support/proof/child-program.ts';
import { contentDigest, contentOf } from '../support/proof/history.ts';
import { HttpStore, versionOf, type HttpAnswer } from '../support/proof/http-store.ts';
import { isLinearizable, type Operation, type Register } from '../support/proof/linearizability.ts';
import { Random } from '../support/proof/random.ts';
import { proofSeed, reportFigure, scaled } from '../support/proof/scale.ts';
import { ServerProgram } from '../support/proof/server-program.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

async function startServer(): Promise<{ readonly server: ServerProgram; readonly store: HttpStore }> {
  const folder = join(await temporaryFolder(), 'store');
  const server = await ServerProgram.start({ folder, workers: 2 });
  if (server === undefined) throw new Error('the server does not start');
  const store = new HttpStore(server.port);
  onTestFinished(() => store.close());
  return { server, store };
}

/** Contents by what a reader gets of them. */
class Contents {
  readonly #names = new Map<string, string>();

  add(content: string): Buffer {
    this.#names.set(contentDigest(content), content);
    return contentOf(content);
  }

  nameOf(digest: unknown): string {
    return this.#names.get(String(digest)) ?? `unknown ${String(digest)}`;
  }
}

function readAnswer(answer: HttpAnswer, contents: Contents): Register {
  if (answer.status === 404) return undefined;
  if (answer.status !== 200) throw new Error(`a read answers ${answer.status}`);
  return { version: versionOf(answer), content: contents.nameOf(answer.headers['sha256-checksum']) };
}

/** One random request on a name, and what came of it. */
async function operate(
  store: HttpStore,
  path: string,
  random: Random,
  contents: Contents,
): Promise<Operation> {
  const version = 1 + random.below(6);
  const kind = random.pick(['put', 'put', 'remove', 'read', 'read'] as const);
  const content = `${random.pick([20, 200, 200, 5000, 30_000])}-model${random.below(1e9)}`;
  const bytes = kind === 'put' ? contents.add(content) : undefined;
  const begin = performance.now();
  try {
    if (bytes !== undefined) {
      const answer = await store.put(path, version, bytes, random.chance(0.5));
      expect(answer.status).toBe(200);
      return {
        call: { kind: 'put', version, content, answer: versionOf(answer) },
        begin,
        end: performance.now(),
      };
    }
    if (kind === 'remove') {
      const answer = await store.remove(path, version);
      const end = performance.now();
      expect([200, 404]).toContain(answer.status);
      const stays = answer.headers['last-modified'] === undefined ? undefined : versionOf(answer);
      const newer = stays !== undefined && stays > version ? stays : 'removed';
      return {
        call: { kind: 'remove', version, answer: answer.status === 404 ? 'absent' : newer },
        begin,
        end,
      };
    }
    const answer = await store.request(random.chance(0.5) ? 'GET' : 'HEAD', `/files${path}`);
    return { call: { kind: 'read', answer: readAnswer(answer, contents) }, begin, end: performance.now() };
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ECONNRESET') {
      if (kind === 'put')
        return { call: { kind, version, content, answer: undefined }, begin, end: undefined };
      return {
        call: { kind: 'remove', version: kind === 'remove' ? version : -1, answer: undefined },
        begin,
        end: undefined,
      };
    }
    throw error;
  }
}

describe(`model, seed ${proofSeed}`, { timeout: scaled(60_000, 1_800_000) }, () => {
  it('answers as a register with versions, whatever runs at once', async () => {
    const { server, store } = await startServer();
    const random = new Random(`${proofSeed}-model`);
    const rounds = scaled(12, 400);
    let checked = 0;
    for (let round = 0; round < rounds; round += 1) {
      const paths = [`/r${round}/a`, `/r${round}/b`];
      const histories = new Map<string, Operation[]>(paths.map((path) => [path, []]));
      const contents = new Contents();
      const client = async (): Promise<void> => {
        for (let done = 0; done < 12; done += 1) {
          const path = random.pick(paths);
          histories.get(path)?.push(await operate(store, path, random, contents));
        }
      };
      const reader = async (): Promise<void> => {
        for (let done = 0; done < 4; done += 1) {
          const begin = performance.now();
          const answer = await store.request('GET', `/list/r${round}`, {
            headers: { accept: 'application/x-ndjson' },
          });
          const end = performance.now();
          const lines = answer.status === 200 ? answer.body.toString().split('\n').filter(Boolean) : [];
          const files = lines.map(
            (line) => JSON.parse(line) as { name: string; version: number; digest: string },
          );
          for (const path of paths) {
            const file = files.find(({ name }) => path.endsWith(`/${name.split('/').at(-1)}`));
            const found = file && { version: file.version, content: contents.nameOf(file.digest) };
            histories.get(path)?.push({ call: { kind: 'read', answer: found }, begin, end });
          }
        }
      };
      await Promise.all([client(), client(), client(), client(), client(), reader()]);
      for (const [path, history] of histories) {
        checked += history.length;
        expect(isLinearizable(history), `seed ${proofSeed}: ${path} ${JSON.stringify(history)}`).toBe(true);
      }
    }
    await server.stop();
    reportFigure('model', `${checked} operations in ${rounds * 2} concurrent histories; all linearizable`);
  });

  it('stays so while workers are killed', async () => {
    const { server, store } = await startServer();
    const random = new Random(`${proofSeed}-killed`);
    const kills = scaled(2, 30);
    for (let round = 0; round < kills; round += 1) {
      const path = `/k${round}/a`;
      const history: Operation[] = [];
      const contents = new Contents();
      const client = async (): Promise<void> => {
        for (let done = 0; done < 10; done += 1) {
          history.push(await operate(store, path, random, contents));
          await delay(random.below(15));
        }
      };
      const killer = async (): Promise<void> => {
        await delay(random.below(60));
        const workers = childrenOf(server.child.pid ?? 0);
        if (workers.length > 0) process.kill(random.pick(workers), 'SIGKILL');
      };
      await Promise.all([client(), client(), client(), client(), killer()]);
      const begin = performance.now();
      const last = readAnswer(await store.request('HEAD', `/files${path}`), contents);
      history.push({ call: { kind: 'read', answer: last }, begin, end: performance.now() });
      expect(isLinearizable(history), `seed ${proofSeed}: ${JSON.stringify(history)}`).toBe(true);
    }
    await server.stop();
    reportFigure(
      'model, workers killed',
      `${kills} histories in which a worker was killed; all linearizable`,
    );
  });

  it('lists each page as of one instant', async () => {
    const { server, store } = await startServer();
    const writing = new AbortController();
    const writer = async (): Promise<void> => {
      for (let version = 1; version <= scaled(60, 1000); version += 1) {
        // The first of the two is never behind, and ahead by one at the most.
        for (const path of ['/snap/a', '/snap/z']) {
          expect((await store.put(path, version, contentOf('20-snap'))).status).toBe(200);
        }
      }
      writing.abort();
    };
    let lists = 0;
    const reader = async (): Promise<void> => {
      while (!writing.signal.aborted) {
        const answer = await store.request('GET', '/list/snap', {
          headers: { accept: 'application/x-ndjson' },
        });
        if (answer.status !== 200) continue;
        const lines = answer.body.toString().split('\n').filter(Boolean);
        const [first = 0, second = 0] = lines.map(
          (line) => (JSON.parse(line) as { version: number }).version,
        );
        lists += 1;
        expect([0, 1]).toContain(first - second);
      }
    };
    await Promise.all([writer(), reader(), reader()]);
    expect(lists).toBeGreaterThan(5);
    await server.stop();
    reportFigure('lists', `${lists} lists while files changed; each page of one instant`);
  });

  it('tells an order that cannot be', () => {
    const put = (
      version: number,
      content: string,
      begin: number,
      end: number,
      answer = version,
    ): Operation => ({
      call: { kind: 'put', version, content, answer },
      begin,
      end,
    });
    const read = (answer: Register, begin: number, end: number): Operation => ({
      call: { kind: 'read', answer },
      begin,
      end,
    });
    const one = { version: 1, content: 'one' };
    const two = { version: 2, content: 'two' };
    expect(isLinearizable([put(1, 'one', 0, 1), read(one, 2, 3)])).toBe(true);
    expect(isLinearizable([put(1, 'one', 0, 1), read(undefined, 2, 3)])).toBe(false);
    expect(isLinearizable([put(2, 'two', 0, 1), put(1, 'one', 2, 3), read(one, 4, 5)])).toBe(false);
    expect(isLinearizable([put(2, 'two', 0, 1), put(1, 'one', 2, 3, 2), read(two, 4, 5)])).toBe(true);
    expect(isLinearizable([put(1, 'one', 0, 9), read(one, 2, 3), read(undefined, 4, 5)])).toBe(false);
  });
});
