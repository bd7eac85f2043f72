import { expect, it } from 'vitest';
import { fileSizeMaxBytes } from '../../core/limits.ts';
import { partSizeBytes, partSizeFor } from './s3-upload.ts';

const mib = 1024 * 1024;

it.each([0, 1, mib, 39 * 1024 * mib, 77 * 1024 * mib, 500 * 1024 * mib, fileSizeMaxBytes])(
  'partSizeFor(%d) makes as many parts as there may be, and none larger than it must',
  (sizeBytes) => {
    const partSize = partSizeFor(sizeBytes);
    expect(partSize).toBeGreaterThanOrEqual(partSizeBytes);
    expect(Math.ceil((sizeBytes * 1.005) / partSize)).toBeLessThanOrEqual(10_000);
    expect(partSize).toBeLessThanOrEqual(Math.max(partSizeBytes, sizeBytes / 9_900 + mib));
    expect(partSize).toBeLessThan(110 * mib);
  },
);
