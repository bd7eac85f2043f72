import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { Client } from 'pg';
import { expect, it, onTestFinished } from 'vitest';
import { noise, prose } from '../support/contents.ts';
import { DocsShell, makeTree } from '../support/docs-shell.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { s3Credentials } from '../support/engine-names.ts';
import { postgresUrl, s3Endpoint } from '../support/engines.ts';
import { freePort } from '../support/free-port.ts';

const database = `filetracker_${randomBytes(6).toString('hex')}`;

/** The words of the page that name what is another one here. */
async function others(): Promise<readonly (readonly [string, string])[]> {
  const port = await freePort(2);
  return [
    ['9991', String(port + 1)],
    ['9992', String(port + 2)],
    ['127.0.0.1:20300', new URL(s3Endpoint()).host],
    ['5432/filetracker', `5432/${database}`],
    ['template0 filetracker', `template0 ${database}`],
    ['5432', new URL(postgresUrl()).port],
    ['filetracker-files', `files-${randomBytes(6).toString('hex')}`],
    ['AWS_ACCESS_KEY_ID=KEY', `AWS_ACCESS_KEY_ID=${s3Credentials.accessKeyId}`],
    ['AWS_SECRET_ACCESS_KEY=SECRET', `AWS_SECRET_ACCESS_KEY=${s3Credentials.secretAccessKey}`],
  ];
}

async function dropDatabase(): Promise<void> {
  const client = new Client({ connectionString: postgresUrl() });
  await client.connect();
  await client.query(`DROP DATABASE IF EXISTS ${database} WITH (FORCE)`);
  await client.end();
}

/** Reads files through the balancer until it is told to end; gives the statuses that it met. */
function reader(shell: DocsShell): { readonly end: () => Promise<readonly number[]> } {
  const state = { over: false };
  const read = async (): Promise<readonly number[]> => {
    const statuses: number[] = [];
    for (let index = 0; !state.over; index = (index + 1) % 5) {
      const name = index % 2 === 0 ? `small-${index}` : `sub/large-${index}`;
      const answer = await fetch(shell.address(`http://127.0.0.1:9999/files/${name}`));
      await answer.arrayBuffer();
      statuses.push(answer.status);
    }
    return statuses;
  };
  const readers = Promise.all([read(), read()]);
  return {
    end: async () => {
      state.over = true;
      return (await readers).flat();
    },
  };
}

it(
  'two servers behind HAProxy are set up, used, restarted and recovered as docs/OPERATIONS.md says',
  { timeout: 180_000 },
  async () => {
    onTestFinished(dropDatabase);
    const shell = await DocsShell.open(await others());
    await makeTree(join(shell.root, 'srv', 'files'));
    await shell.run('two-engines');
    await shell.run('two-start');
    await shell.write('haproxy', '/srv/haproxy.cfg');
    await shell.run('two-balance');
    expect(await shell.run('two-use')).toMatch(/10 stored[\s\S]*^10$\n^10$/m);

    const reading = reader(shell);
    await shell.run('two-restart');
    const statuses = await reading.end();
    expect(statuses.length).toBeGreaterThan(20);
    expect(statuses.filter((status) => status !== 200)).toEqual([]);
    expect(await shell.run('two-recover')).toContain('nothing to do');

    // What a store in a folder has comes beside it.
    {
      await using store = await EmbeddedStore.open(join(shell.root, 'srv', 'filetracker'));
      await store.put('/moved/small', 7, prose(300, 'moved'));
      await store.put('/moved/large', 7, noise(50_000, 'moved'));
    }
    expect(await shell.run('two-move')).toMatch(/2 files; 2 copied/);
    expect(await (await fetch(shell.address('http://127.0.0.1:9999/list/'))).text()).toContain('moved/large');
    const embed =
      '. /srv/engines; filetracker-server move --from /srv/filetracker --s3-endpoint http://127.0.0.1:20300 ' +
      '--to /srv/embedded,s3://filetracker-files/embedded';
    expect(await shell.execute(embed)).toMatchObject({ code: 0 });
    expect(await shell.run('bucket-recover')).toContain('nothing to do');

    expect(await shell.run('two-token')).toMatch(/^judge\t/m);
    const statusNow = async (): Promise<number> =>
      (await fetch(shell.address('http://127.0.0.1:9999/files/small-0'))).status;
    await expect.poll(statusNow, { timeout: 60_000 }).toBe(401);
  },
);
