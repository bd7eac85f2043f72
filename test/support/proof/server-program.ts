import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { killGroup, startNode, type Ended } from './child-program.ts';

const builtServer = fileURLToPath(new URL('../../../dist/cli/filetracker-server.cjs', import.meta.url));

export interface ServerOrder {
  readonly folder: string;
  readonly workers: number;
  readonly environment?: Readonly<Record<string, string>>;
  readonly flags?: readonly string[];
  /** 0, or the port of the one before. */
  readonly port?: number;
  /** Another build of the program. */
  readonly program?: string;
}

/** The real program with all its processes, in a process group of its own. */
export class ServerProgram {
  readonly port: number;
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;

  private constructor(port: number, child: ChildProcess, ended: Promise<Ended>) {
    this.port = port;
    this.child = child;
    this.ended = ended;
  }

  /** Resolves when it listens; undefined where it ended before. */
  static async start(order: ServerOrder): Promise<ServerProgram | undefined> {
    const { folder, workers, environment = {}, flags = [], port = 0, program = builtServer } = order;
    if (!existsSync(program)) throw new Error('the programs are not built: run `npm run build`');
    const args = ['-p', String(port), '-d', folder, '--workers', String(workers), '--gc-grace', '0s'];
    args.push('-L', `${folder}.log`, '--log-level', 'error', '--free-space-min', '0', ...flags);
    const { child, ended } = startNode([program, ...args], environment);
    const found = await new Promise<number | undefined>((resolve) => {
      let text = '';
      child.stderr?.on('data', (piece: string) => {
        text += piece;
        const match = /listens on http:\/\/127\.0\.0\.1:(\d+)/.exec(text);
        if (match?.[1] !== undefined) resolve(Number(match[1]));
      });
      void ended.then(() => resolve(undefined));
    });
    return found === undefined ? undefined : new ServerProgram(found, child, ended);
  }

  /** Kills all its processes at once. */
  async kill(): Promise<Ended> {
    killGroup(this.child);
    return this.ended;
  }

  /** Stops it as an operator would. */
  async stop(): Promise<Ended> {
    this.child.kill('SIGTERM');
    return this.ended;
  }
}
