import { spawnSync } from 'node:child_process';
import { constants, copyFileSync, cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { copyVariable, nodeIn, programPath, projectFolder } from './built-programs.ts';

const nobody = { uid: 65_534, gid: 65_534 };

function canRun(node: string, path: string): boolean {
  return spawnSync(node, [path, '--help'], { ...nobody, stdio: 'ignore' }).status === 0;
}

/** The packages that the programs need, as the lock file has them. */
function packagesToRun(): string[] {
  const lock = JSON.parse(readFileSync(join(projectFolder, 'package-lock.json'), 'utf8')) as {
    readonly packages: Readonly<Record<string, { readonly dev?: boolean; readonly devOptional?: boolean }>>;
  };
  return Object.entries(lock.packages).flatMap(([path, { dev, devOptional }]) =>
    path === '' || dev === true || devOptional === true || !existsSync(join(projectFolder, path))
      ? []
      : [path],
  );
}

function copyProject(): string {
  const copy = mkdtempSync(join(tmpdir(), 'filetracker-copy-'));
  for (const path of ['package.json', 'dist', ...packagesToRun()]) {
    cpSync(join(projectFolder, path), join(copy, path), { recursive: true });
  }
  copyFileSync(process.execPath, nodeIn(copy), constants.COPYFILE_FICLONE);
  spawnSync('chmod', ['-R', 'a+rX', copy]);
  return copy;
}

/**
 * Before all tests: if root runs them in a folder that other users cannot read, as that of root itself, makes a copy of
 * the programs for those tests that run them as another user.
 */
export default function setup(): (() => void) | undefined {
  if (process.env[copyVariable] !== undefined) return undefined;
  if (process.getuid?.() !== 0 || !existsSync(programPath('filetracker'))) return undefined;
  if (canRun(process.execPath, programPath('filetracker-recover'))) return undefined;
  const copy = copyProject();
  process.env[copyVariable] = copy;
  return () => {
    delete process.env[copyVariable];
    rmSync(copy, { recursive: true, force: true });
  };
}
