import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SharedCatalog } from '../../src/catalog/leader/shared-catalog.ts';
import { describeCatalog } from './catalog.contract.ts';

describeCatalog('SharedCatalog that follows a leader', async (placer, clock) => {
  const folder = await mkdtemp(join(tmpdir(), 'filetracker-'));
  const folders = { journal: join(folder, 'journal'), catalog: join(folder, 'catalog') };
  const options = { folders, placer, clock };
  const leader = await SharedCatalog.open(options);
  const catalog = await SharedCatalog.open(options);
  return {
    catalog,
    dispose: async () => {
      await catalog.close();
      await leader.close();
      await rm(folder, { recursive: true });
    },
  };
});
