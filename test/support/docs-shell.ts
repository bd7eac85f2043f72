import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished } from 'vitest';
import { noise, prose } from './contents.ts';
import { freePort } from './free-port.ts';
import { systemFolder } from './installed-engines.ts';
import { programPath } from './built-programs.ts';
import { temporaryFolder } from './temporary-folder.ts';

const page = fileURLToPath(new URL('../../docs/OPERATIONS.md', import.meta.url));

/** A shell in which the commands of the page run as they stand, but for the folder /srv, ports, and what else is said. */
export class DocsShell {
  readonly root: string;
  readonly #text: string;
  readonly #others: readonly (readonly [string, string])[];

  private constructor(root: string, text: string, others: readonly (readonly [string, string])[]) {
    this.root = root;
    this.#text = text;
    this.#others = others;
  }

  /** `others` are words of the page, and what stands for them here, put in one after the other. */
  static async open(others: readonly (readonly [string, string])[] = []): Promise<DocsShell> {
    const root = await temporaryFolder();
    const all = [['/srv', join(root, 'srv')], ['9999', String(await freePort(0))], ...others] as const;
    const shell = new DocsShell(root, await readFile(page, 'utf8'), all);
    await mkdir(join(root, 'bin'));
    await mkdir(join(root, 'srv'));
    for (const program of ['filetracker-server', 'filetracker-migrate', 'filetracker-recover']) {
      const path = join(root, 'bin', program);
      await writeFile(path, `#!/bin/sh\nexec "${process.execPath}" "${programPath(program)}" "$@"\n`);
      await chmod(path, 0o755);
    }
    onTestFinished(async () => {
      await shell.execute('for file in /srv/*.pid; do [ ! -e "$file" ] || kill -9 -- "$(cat "$file")"; done');
    });
    return shell;
  }

  /** Runs a block of the page; gives what it printed. */
  async run(title: string): Promise<string> {
    const { code, output } = await this.execute(this.#block(`sh ${title}`));
    expect(code, `${title}: ${output}`).toBe(0);
    return output;
  }

  /** Writes the block of some language that the page tells to keep as a file. */
  async write(language: string, path: string): Promise<void> {
    await writeFile(this.#adapted(path), this.#adapted(this.#block(language)));
  }

  /** What stands here for an address of the page. */
  address(text: string): string {
    return this.#adapted(text);
  }

  #block(information: string): string {
    for (const [, found, block = ''] of this.#text.matchAll(/^```([\w -]+)\n([\s\S]*?)^```$/gm)) {
      if (found === information) return block;
    }
    throw new Error(`the page has no block "${information}"`);
  }

  #adapted(text: string): string {
    return this.#others.reduce((adapted, [word, here]) => adapted.replaceAll(word, here), text);
  }

  async execute(commands: string): Promise<{ code: number; output: string }> {
    // The page does not quote its paths; the folder for temporary files may have blanks in its own.
    const folder = join(this.root, 'srv');
    const quoted = this.#adapted(commands).replaceAll(
      folder,
      folder.replaceAll(/[^\w./-]/g, String.raw`\$&`),
    );
    const path = `${join(this.root, 'bin')}:${process.env['PATH'] ?? ''}:${systemFolder}`;
    const child = spawn('bash', ['-euo', 'pipefail', '-c', quoted], {
      cwd: this.root,
      env: { ...process.env, PATH: path, NODE_NO_WARNINGS: '1' },
      stdio: ['ignore', 'pipe', 'pipe'],
      // Blocks wait for what may never come.
      timeout: 100_000,
      killSignal: 'SIGKILL',
    });
    const closed = once(child, 'exit');
    let output = '';
    for await (const piece of child.stdout) output += String(piece);
    for await (const piece of child.stderr) output += String(piece);
    const [code] = (await closed) as [number | null];
    return { code: code ?? -1, output };
  }
}

/** Ten files, half of them large. */
export async function makeTree(folder: string): Promise<void> {
  await mkdir(join(folder, 'sub'), { recursive: true });
  for (let index = 0; index < 5; index += 1) {
    await writeFile(join(folder, `small-${index}`), prose(500, `${index}`));
    await writeFile(join(folder, 'sub', `large-${index}`), noise(30_000, `${index}`));
  }
}
