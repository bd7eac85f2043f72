import { readdir, rm, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { digestOf } from '../../src/core/digest.ts';
import { noise } from '../support/contents.ts';
import { openTestServer } from '../support/test-server.ts';

it.each([
  ['removed', (path: string) => rm(path)],
  ['cut short', (path: string) => truncate(path, 1000)],
])('a PUT of a content whose file was %s brings it back', async (_state, lose) => {
  const server = await openTestServer();
  const content = noise(100_000);
  const loseBlob = async (): Promise<void> => {
    const blobs = join(server.folder, 'blobs');
    const files = await readdir(blobs, { recursive: true, withFileTypes: true });
    const [file] = files.filter((item) => item.isFile());
    await lose(join(file?.parentPath ?? '', file?.name ?? ''));
  };
  await server.put('/a', content);
  const headers = { 'SHA256-Checksum': digestOf(content) };
  for (const more of [{}, headers]) {
    await loseBlob();
    expect((await server.put('/b', content, { headers: more })).status).toBe(200);
    for (const name of ['/a', '/b']) {
      const answer = await server.request({ target: `/files${name}` });
      expect(answer.status).toBe(200);
      expect(answer.body.equals(content)).toBe(true);
    }
  }
});
