import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { onTestFinished } from 'vitest';
import { commandFor, type User } from './built-programs.ts';

export interface ProgramOptions {
  readonly args?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly folder?: string;
  /** Who runs it; takes root. */
  readonly user?: User | undefined;
}

export interface ProgramEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly output: string;
  readonly errors: string;
}

/** A program of ours in a process of its own, killed when the test is over. */
export class Program {
  readonly child: ChildProcess;
  readonly #end: Promise<ProgramEnd>;
  #output = '';
  #errors = '';
  #wake: () => void = () => undefined;

  constructor(name: string, options: ProgramOptions = {}) {
    const { args = [], environment = {}, folder, user } = options;
    const { FILETRACKER_DIR: _, FILETRACKER_URL: __, ...inherited } = process.env;
    const { node, path } = commandFor(name, user);
    this.child = spawn(node, [path, ...args], {
      cwd: folder,
      ...user,
      env: { ...inherited, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const gather = async (
      source: AsyncIterable<unknown> | null,
      add: (text: string) => void,
    ): Promise<void> => {
      for await (const piece of source ?? []) {
        add(String(piece));
        this.#wake();
      }
    };
    const gathered = Promise.all([
      gather(this.child.stdout, (text) => (this.#output += text)),
      gather(this.child.stderr, (text) => (this.#errors += text)),
    ]);
    this.#end = once(this.child, 'close').then(async ([code, signal]) => {
      await gathered;
      this.#wake();
      return { code, signal, output: this.#output, errors: this.#errors };
    });
    onTestFinished(async () => {
      this.child.kill('SIGKILL');
      await this.#end;
    });
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** Waits for something in what was printed; fails if the program ends before. */
  async printed(wanted: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const found = wanted.exec(this.#output) ?? wanted.exec(this.#errors);
      if (found !== null) return found;
      if (this.child.exitCode !== null || this.child.signalCode !== null) {
        throw new Error(`the program ended (${this.child.exitCode}): ${this.#errors}${this.#output}`);
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  ended(): Promise<ProgramEnd> {
    return this.#end;
  }
}

/** Runs a program to its end. */
export function run(name: string, ...args: readonly string[]): Promise<ProgramEnd> {
  return new Program(name, { args }).ended();
}

/** A server of ours in a process of its own, on a free port. */
export async function startServerProgram(
  folder: string,
  more: readonly string[] = [],
  user?: ProgramOptions['user'],
): Promise<{ readonly program: Program; readonly port: number }> {
  const program = new Program('filetracker-server', { args: ['-d', folder, '-p', '0', ...more], user });
  const [, port] = await program.printed(/listens on http:\/\/127\.0\.0\.1:(\d+)/);
  return { program, port: Number(port) };
}
