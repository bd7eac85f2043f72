import * as fc from 'fast-check';

/** The choices of the properties: the same in each run of `npm test`, new ones in each of `npm run test:full`. */
fc.configureGlobal({ seed: Number(process.env['FILETRACKER_TEST_SEED'] ?? '1') });

export { fc };
