import { spawn } from 'node:child_process';
import { commandFor, type User } from './built-programs.ts';

/** What a program printed and how it ended. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
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
  readonly user?: User;
}

/** Starts a program with no settings but those given. */
export function startProgram(name: string, words: readonly string[], options: StartOptions = {}): Started {
  const { node, path } = commandFor(name, options.user);
  const child = spawn(node, [path, ...words], {
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
