import { MemoryCatalog } from '../support/doubles/memory-catalog.ts';
import { describeCatalog } from './catalog.contract.ts';

describeCatalog('MemoryCatalog', async (placer, clock) => {
  const catalog = new MemoryCatalog(placer, { clock });
  return { catalog, dispose: () => catalog.close() };
});
