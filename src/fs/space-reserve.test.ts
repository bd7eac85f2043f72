import { existsSync } from 'node:fs';
import { stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { temporaryFolder } from '../../test/support/temporary-folder.ts';
import { SpaceReserve } from './space-reserve.ts';

const sizeBytes = 64 * 1024;

async function filled(path: string): Promise<SpaceReserve> {
  const reserve = await SpaceReserve.open(path, sizeBytes);
  reserve.fill();
  await reserve.idle();
  return reserve;
}

it('SpaceReserve keeps space until it is given back, once', async () => {
  const path = join(await temporaryFolder(), 'reserve');
  const reserve = await filled(path);
  expect((await stat(path)).blocks * 512).toBeGreaterThanOrEqual(sizeBytes);
  expect([reserve.release(), reserve.release()]).toEqual([true, false]);
  expect(existsSync(path)).toBe(false);
  // Not at once: what was given back is for who asked for it.
  reserve.fill();
  await reserve.idle();
  expect(existsSync(path)).toBe(false);
});

it('SpaceReserve takes over what is there, if it has its blocks', async () => {
  const path = join(await temporaryFolder(), 'reserve');
  await filled(path);
  expect((await filled(path)).release()).toBe(true);
  await filled(path);
  await truncate(path, 0);
  await truncate(path, sizeBytes);
  const reserve = await filled(path);
  expect((await stat(path)).blocks * 512).toBeGreaterThanOrEqual(sizeBytes);
  expect(reserve.release()).toBe(true);
});

it('SpaceReserve takes nothing where there is not plenty, or no folder', async () => {
  const folder = await temporaryFolder();
  const large = await SpaceReserve.open(join(folder, 'reserve'), 2 ** 60);
  large.fill();
  await large.idle();
  expect(existsSync(join(folder, 'reserve'))).toBe(false);
  expect(large.release()).toBe(false);
  expect((await filled(join(folder, 'none', 'reserve'))).release()).toBe(false);
});
