import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Program } from '../support/program.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

/** What a worker runs before the program itself, so that it ends as if the system had ended it. */
const faults = {
  'before they are ready': "process.kill(process.pid, 'SIGSEGV');",
  'as soon as they are ready': `
    const send = process.send;
    process.send = (message, ...rest) => {
      const sent = send.call(process, message, ...rest);
      if (message.type === 'ready') setImmediate(() => process.kill(process.pid, 'SIGSEGV'));
      return sent;
    };`,
} as const;

async function startWithFault(
  fault: string,
  { slots, workers }: { readonly slots: string; readonly workers: number },
): Promise<Program> {
  const folder = await temporaryFolder();
  const file = join(folder, 'fault.cjs');
  await writeFile(file, `if (${slots}.includes(process.env.FILETRACKER_WORKER)) { ${fault} }`);
  return new Program('filetracker-server', {
    args: ['-d', join(folder, 'store'), '-p', '0', '--workers', String(workers)],
    environment: { NODE_OPTIONS: `--require "${file}"` },
    folder,
  });
}

describe('workers that die at once, again and again', () => {
  it.each([
    ['before they are ready', 2],
    ['as soon as they are ready', 1],
  ] as const)('end the server with the reason: %s', { timeout: 180_000 }, async (when, workers) => {
    const program = await startWithFault(faults[when], { slots: "['0', '1']", workers });
    const { code, output, errors } = await program.ended();
    expect(code).toBe(1);
    expect(errors).toMatch(
      /filetracker-server: Cannot keep the workers running: each stopped soon after it started, the last by SIGSEGV; check for a limit on memory [^\n]+\n$/,
    );
    const pauses = [...output.matchAll(/"slot":0,[^\n]*"restartInMs":(\d+)/g)].map(([, ms]) => Number(ms));
    expect(pauses.length).toBeGreaterThanOrEqual(5);
    // Each pause is longer than the one before it.
    expect(pauses).toEqual([...new Set(pauses)].sort((one, other) => one - other));
    expect(errors).not.toMatch(/^ +at /m);
  });

  it(
    'are tried on, with longer and longer pauses, while another worker serves',
    { timeout: 180_000 },
    async () => {
      const program = await startWithFault(faults['as soon as they are ready'], {
        slots: "['1']",
        workers: 2,
      });
      await program.printed(/"slot":1,[^\n]*"restartInMs":6400/);
      expect(program.child.exitCode).toBe(null);
      program.kill('SIGTERM');
      expect((await program.ended()).code).toBe(0);
    },
  );
});
