import { mkdirSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Exclusions } from '../../src/client/sync/exclusions.ts';
import type { FileClient } from '../../src/client/file-client.ts';
import { pullTree } from '../../src/client/sync/pull.ts';
import { pushTree } from '../../src/client/sync/push.ts';
import type { TreeEvent, TreeOptions, TreeSummary } from '../../src/client/sync/tally.ts';
import { temporaryFolder } from './temporary-folder.ts';

/** What a transfer of a tree did and said. */
export interface TreeResult {
  /** The counts that are not zero. */
  readonly counts: Readonly<Record<string, number>>;
  /** `action path-or-name: reason` of all but what was sent, fetched or unchanged. */
  readonly said: readonly string[];
  readonly losses: readonly string[];
}

export type TreeSettings = Partial<TreeOptions> & { readonly exclude?: readonly string[] };

export interface TreeBench {
  readonly folder: string;
  readonly path: (relative: string) => string;
  readonly write: (relative: string, content?: string, mtimeSeconds?: number) => string;
  readonly push: (from: string, to: string, settings?: TreeSettings) => Promise<TreeResult>;
  readonly pull: (from: string, to: string, settings?: TreeSettings) => Promise<TreeResult>;
  /** Names on the server. */
  readonly names: () => Promise<string[]>;
}

/** A folder, and transfers of trees between it and a client, in this process. */
export async function treeBench(client: FileClient): Promise<TreeBench> {
  const folder = await temporaryFolder();
  const path = (relative: string): string => join(folder, relative);
  const write: TreeBench['write'] = (relative, content = relative, mtimeSeconds = 1_700_000_000) => {
    mkdirSync(dirname(path(relative)), { recursive: true });
    writeFileSync(path(relative), content);
    utimesSync(path(relative), mtimeSeconds, mtimeSeconds);
    return path(relative);
  };
  const run = async (
    settings: TreeSettings,
    transfer: (options: TreeOptions) => Promise<TreeSummary>,
  ): Promise<TreeResult> => {
    const events: TreeEvent[] = [];
    const losses: string[] = [];
    const { bytes: _bytes, ...counts } = await transfer({
      list: (options) => client.listRemoteEntries(options),
      onlyChanged: true,
      checksum: false,
      delete: false,
      allowEmpty: false,
      exclusions: new Exclusions(settings.exclude),
      cacheFolder: undefined,
      force: false,
      dryRun: false,
      namesFormTree: true,
      parallel: 1,
      transfer: {},
      onEvent: (event) => void events.push(event),
      onLoss: (text) => void losses.push(text.replaceAll(`${folder}/`, '')),
      onBytes: () => undefined,
      onTotal: () => undefined,
      ...settings,
    });
    const said = events.flatMap(({ action, path: local, name, reason }) =>
      ['sent', 'fetched', 'unchanged'].includes(action)
        ? []
        : [
            `${action} ${local?.slice(folder.length + 1) ?? name}${reason === undefined ? '' : `: ${reason}`}`,
          ],
    );
    return {
      counts: Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0)),
      said,
      losses,
    };
  };
  return {
    folder,
    path,
    write,
    push: (from, to, settings = {}) => run(settings, (options) => pushTree(client, path(from), to, options)),
    pull: (from, to, settings = {}) => run(settings, (options) => pullTree(client, from, path(to), options)),
    names: async () => {
      const names: string[] = [];
      for await (const name of client.listRemoteFiles()) names.push(name);
      return names;
    },
  };
}
