import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type Plugin } from 'esbuild';
import { onTestFinished } from 'vitest';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const built = new Map<string, Promise<string>>();

/** A program of this folder in a form that Node runs; gives its path. */
export function builtProgram(source: string): Promise<string> {
  return builtOnce(source, []);
}

/**
 * The server with journal segments so short that a minute's load makes it compact them; else it is the very
 * program. Started by its path, as the built one.
 */
export function serverWithShortSegments(): Promise<string> {
  return builtOnce('../../../src/cli/filetracker-server.ts', [shortSegments]);
}

const shortSegments: Plugin = {
  name: 'short segments',
  setup: (building) => {
    building.onLoad({ filter: /src\/core\/limits\.ts$/ }, ({ path }) => {
      const text = readFileSync(path, 'utf8');
      const contents = text.replace('segmentSizeBytes = 64 * mib', 'segmentSizeBytes = 96 * kib');
      if (contents === text) throw new Error('the size of a segment is not where it was in limits.ts');
      return { contents, loader: 'ts' };
    });
  },
};

function builtOnce(source: string, plugins: Plugin[]): Promise<string> {
  let path = built.get(source);
  if (path === undefined) {
    path = buildProgram(source, plugins);
    built.set(source, path);
  }
  return path;
}

async function buildProgram(source: string, plugins: Plugin[]): Promise<string> {
  const result = await build({
    entryPoints: [fileURLToPath(new URL(source, import.meta.url))],
    bundle: true,
    write: false,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    packages: 'external',
    absWorkingDir: root,
    plugins,
  });
  const [output] = result.outputFiles;
  if (output === undefined) throw new Error(`nothing was built from ${source}`);
  // Below node_modules, so that the packages it imports are found.
  const folder = join(root, 'node_modules', '.cache', 'filetracker-proof');
  const print = createHash('sha256').update(output.contents).digest('hex').slice(0, 16);
  const target = join(folder, `${print}.mjs`);
  if (existsSync(target)) return target;
  mkdirSync(folder, { recursive: true });
  const temporary = `${target}.${process.pid}`;
  writeFileSync(temporary, output.contents);
  renameSync(temporary, target);
  return target;
}

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly errors: string;
}

/** Starts a Node program in a process group of its own; what is left of it is killed when the test is over. */
export function startNode(
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
): { readonly child: ChildProcess; readonly ended: Promise<Ended> } {
  const child = spawn(process.execPath, args, {
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, ...environment },
  });
  onTestFinished(() => killGroup(child));
  const ended = watched(child);
  return { child, ended };
}

/** Processes that a process has started. */
export function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return text.split(' ').filter(Boolean).map(Number);
}

/** Kills a program and the processes it has started. */
export function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // The whole group has ended already.
  }
}

async function watched(child: ChildProcess): Promise<Ended> {
  let errors = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    errors = (errors + text).slice(-4000);
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  return { code, signal, errors };
}

/** The path of one of the project's programs, as it was built. */
export function programPath(file: string): string {
  const path = join(root, 'dist', 'cli', file);
  if (!existsSync(path)) throw new Error('the programs are not built: run `npm run build`');
  return path;
}
