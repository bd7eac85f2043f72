import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const script = fileURLToPath(new URL('../../scripts/soak.mjs', import.meta.url));

// The short cut of `npm run test:soak`, which goes on for ten minutes with 200 active and 1,000 idle connections.
it('a server whose workers are killed under load gives no wrong answer', { timeout: 300_000 }, async () => {
  const flags = '--built --seconds 6 --kill-every 2 --active 40 --idle 100 --pause 50'.split(' ');
  const { stdout } = await promisify(execFile)(process.execPath, [script, ...flags]);
  const figures: unknown = JSON.parse(stdout.slice(stdout.indexOf('{\n')));
  expect(figures).toMatchObject({ wrong: 0, unexpected: 0, exitCode: 0, recoverCode: 0 });
  expect((figures as { kills: number }).kills).toBeGreaterThan(0);
});
