import { resolve } from 'node:path';
import { FiletrackerError } from '../core/errors.ts';
import { readEngineConfig, type EngineConfig, type EngineTuningFlags } from './engine-config.ts';

/** A store as programs that deal with several are told of it. */
export interface StoreAddress {
  /** Absolute; undefined where nothing lies in a folder. */
  readonly folder: string | undefined;
  readonly engines: EngineConfig;
}

/** Whether a text is the address of a store that is not, or not only, in a folder. */
export function namesEngines(text: string): boolean {
  return /(?:^|,)(?:postgres(?:ql)?|s3):/.test(text);
}

/**
 * Reads the address of a store: a folder, `postgres://…,s3://…`, or a folder and one of them. Flags tell of time-outs
 * and the S3 server.
 * @throws FiletrackerError `invalid-argument`.
 */
export function readStoreAddress(text: string, flags: EngineTuningFlags = {}): StoreAddress {
  const parts = text.split(',').filter((part) => part !== '');
  const take = (form: RegExp): string | undefined => {
    const at = parts.findIndex((part) => form.test(part));
    return at === -1 ? undefined : parts.splice(at, 1)[0];
  };
  const catalog = take(/^postgres(?:ql)?:/);
  const blobs = take(/^s3:/);
  const [folder, ...others] = parts;
  const complete = folder !== undefined || (catalog !== undefined && blobs !== undefined);
  if (!complete || others.length > 0) {
    throw new FiletrackerError(
      'invalid-argument',
      'Cannot use the address of a store: it must be DIR, or postgres://…,s3://…, or DIR with one of these',
    );
  }
  const engines = readEngineConfig({ ...flags, catalog, blobs }, {});
  return { folder: folder === undefined ? undefined : resolve(folder), engines };
}
