import { PostgresCatalog } from '../../src/catalog/postgres/postgres-catalog.ts';
import { describeCatalog } from '../contracts/catalog.contract.ts';
import { freshSchema, postgresUrl } from '../support/engines.ts';

describeCatalog('PostgresCatalog', async (placer, clock) => {
  const { schema, drop } = freshSchema();
  const catalog = await PostgresCatalog.open({ url: postgresUrl(), schema, placer, clock, poolSize: 10 });
  return {
    catalog,
    dispose: async () => {
      await catalog.close();
      await drop();
    },
  };
});
