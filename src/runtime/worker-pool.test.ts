import { describe, expect, it } from 'vitest';
import { nodeFlagsOfWorkers } from './worker-pool.ts';

describe('nodeFlagsOfWorkers()', () => {
  it('bounds the space for new objects, beside the flags of the supervisor', () => {
    expect(nodeFlagsOfWorkers(['--use-openssl-ca'], undefined)).toEqual([
      '--use-openssl-ca',
      '--max-semi-space-size=8',
    ]);
  });

  it.each([
    [['--max-semi-space-size=32'], undefined],
    [['--max_semi_space_size=32'], ''],
    [['--min-semi-space-size=16'], ''],
    [[], '--max-old-space-size=500 --max-semi-space-size=32'],
  ])('leaves a bound of the user alone: %j, NODE_OPTIONS %j', (flags, nodeOptions) => {
    expect(nodeFlagsOfWorkers(flags, nodeOptions)).toEqual(flags);
  });
});
