import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { noise, prose } from '../support/contents.ts';
import { DocsShell, makeTree } from '../support/docs-shell.ts';
import { EmbeddedStore } from '../support/embedded-store.ts';
import { LegacyFolder } from '../support/legacy-folder.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

describe('the commands of docs/OPERATIONS.md', () => {
  it('upgrade folders of both old versions', { timeout: 300_000 }, async () => {
    const shell = await DocsShell.open();
    const legacy = new LegacyFolder(join(shell.root, 'srv', 'filetracker-2'));
    await legacy.prepare();
    for (let index = 0; index < 7; index += 1)
      await legacy.add(`/old/${index}`, prose(100, `${index}`), index);
    expect(await shell.run('upgrade-2')).toMatch(/^7$/m);
    await shell.run('stop');
    await shell.run('upgrade-2-elsewhere');
    await makeTree(join(shell.root, 'srv', 'filetracker-1', 'files'));
    await shell.run('upgrade-1');
  });

  it('part a folder that holds files of filetracker 2 and of ours', { timeout: 300_000 }, async () => {
    const shell = await DocsShell.open();
    const legacy = new LegacyFolder(join(shell.root, 'srv', 'both'));
    await legacy.prepare();
    await legacy.add('/old', noise(20_000, 'old'), 5);
    {
      await using store = await EmbeddedStore.open(legacy.folder);
      await store.put('/ours/large', 7, noise(30_000, 'ours'));
      await store.put('/old', 8, prose(100, 'newer'));
    }
    await shell.run('part');
    await using parted = await EmbeddedStore.open(join(shell.root, 'srv', 'parted'));
    expect(await parted.names()).toEqual(['/old', '/ours/large']);
    expect(await parted.read('/old')).toEqual(prose(100, 'newer'));
    expect(await parted.read('/ours/large')).toEqual(noise(30_000, 'ours'));
  });

  it(
    'bring files in, back up, restore, verify, recover, and pass the drills',
    { timeout: 300_000 },
    async () => {
      const between = join(await temporaryFolder(), 'between');
      const shell = await DocsShell.open([['2026-11-23T10:00:00Z', `"$(cat "${between}")"`]]);
      await makeTree(join(shell.root, 'srv', 'files'));
      await shell.run('start');
      expect(await shell.run('migrate')).toMatch(/10 stored[\s\S]*10 present already/);
      await shell.run('backup');
      await writeFile(between, new Date().toISOString());
      await shell.run('backup');
      expect(await shell.run('restore')).toMatch(/10 files are in/);
      expect(await shell.run('verify')).toMatch(/started/);
      expect(await shell.run('drill-lost')).toMatch(/^10$/m);
      await shell.run('drill-catalog');
      expect(await shell.run('drill-content')).toMatch(/Lost files[\s\S]*10 files/);
      await shell.run('stop');
      await shell.run('recover');
    },
  );

  it('add, list and remove tokens', async () => {
    const shell = await DocsShell.open();
    const printed = await shell.run('token');
    expect(printed).toMatch(/^ft_[\w-]{51}$/m);
    expect(printed).toMatch(/^writer\t\/\tread,write,delete,list\t/m);
  });
});
