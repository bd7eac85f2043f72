import { existsSync, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { otherS3Endpoint } from './engine-names.ts';

/** Where programs of administrators are, which not every user has on the path. */
export const systemFolder = '/usr/sbin';

function onPath(program: string): boolean {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), systemFolder];
  return folders.some((folder) => existsSync(join(folder, program)));
}

function hasPostgres(): boolean {
  const root = '/usr/lib/postgresql';
  const versions = existsSync(root) ? readdirSync(root) : [];
  return versions.some((version) => existsSync(join(root, version, 'bin/initdb'))) || onPath('initdb');
}

/** Which engines this machine has, without starting any. */
export function installedEngines(): {
  readonly postgres: boolean;
  readonly s3: boolean;
  /** HAProxy, with what sets up the others by hand. */
  readonly balancer: boolean;
  /** nginx, to put in front of a server. */
  readonly proxy: boolean;
} {
  const s3 = otherS3Endpoint !== '' || ['radosgw', 'ceph-mon', 'ceph-osd'].every(onPath);
  return {
    postgres: hasPostgres(),
    s3,
    balancer: ['haproxy', 'curl', 'createdb'].every(onPath),
    proxy: onPath('nginx'),
  };
}
