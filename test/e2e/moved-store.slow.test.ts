import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { noise } from '../support/contents.ts';
import { startServerProgram } from '../support/program.ts';
import { requestOnce } from '../support/raw-http.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { versionQuery } from '../support/test-server.ts';

it('a server whose store is moved away answers changes with 503 and is not ready, until it is back', async () => {
  const root = await temporaryFolder();
  const store = join(root, 'store');
  const { program, port } = await startServerProgram(store, ['--workers', '2']);
  const put = (path: string): ReturnType<typeof requestOnce> =>
    requestOnce(port, {
      method: 'PUT',
      target: `/files${path}?${versionQuery()}`,
      body: noise(100, path),
    });
  const readiness = async (): Promise<number> => (await requestOnce(port, { target: '/readyz' })).status;
  expect((await put('/a')).status).toBe(200);
  await rename(store, join(root, 'moved'));
  for (const path of ['/b', '/c', '/d']) {
    const { status, body } = await put(path);
    expect(status).toBe(503);
    expect(body.toString()).toContain('was moved, removed or replaced');
    expect(body.toString()).not.toContain(root);
  }
  await expect.poll(readiness, { timeout: 60_000 }).toBe(503);
  await rename(join(root, 'moved'), store);
  await expect.poll(readiness, { timeout: 60_000 }).toBe(200);
  expect((await put('/b')).status).toBe(200);
  program.kill('SIGTERM');
  expect((await program.ended()).code).toBe(0);
});
