import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

/** What a program printed and how it ended. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The built program, as users start it. `npm test` builds it before the tests. */
export function programPath(name: string): string {
  const folder = join(process.cwd(), 'dist', 'cli');
  const launcher = join(folder, `${name}.cjs`);
  return existsSync(launcher) ? launcher : join(folder, `${name}.js`);
}

export interface Started {
  readonly ended: Promise<Ended>;
  kill(signal: NodeJS.Signals): void;
}

export interface StartOptions {
  readonly environment?: Readonly<Record<string, string>>;
  readonly input?: string | Buffer;
  readonly folder?: string;
  /** The user and group to run as; takes root. */
  readonly user?: { readonly uid: number; readonly gid: number };
}

/** Starts a program with no settings but those given. */
export function startProgram(name: string, words: readonly string[], options: StartOptions = {}): Started {
  const child = spawn(process.execPath, [programPath(name), ...words], {
    stdio: 'pipe',
    cwd: options.folder,
    ...options.user,
    env: { PATH: process.env['PATH'], HOME: '/nonexistent', ...options.environment },
  });
  const ended = new Promise<Ended>((resolve) => {
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('latin1').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    child.stdin.on('error', () => undefined);
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
  child.stdin.end(options.input);
  return { ended, kill: (signal) => void child.kill(signal) };
}

export async function runProgram(
  name: string,
  words: readonly string[],
  options: StartOptions = {},
): Promise<Ended> {
  return await startProgram(name, words, options).ended;
}
