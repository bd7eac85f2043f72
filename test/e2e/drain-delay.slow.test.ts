import { describe, expect, it } from 'vitest';
import { Program, run, startServerProgram } from '../support/program.ts';
import { requestOnce } from '../support/raw-http.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { versionQuery } from '../support/test-server.ts';

const good = versionQuery();

/** The status of /readyz from as many connections as reach every worker. */
async function readiness(port: number, workers: number): Promise<readonly number[]> {
  const asked = Array.from({ length: workers * 2 }, () => requestOnce(port, { target: '/readyz' }));
  const statuses = (await Promise.all(asked)).map(({ status }) => status);
  return [...new Set(statuses)];
}

describe('--drain-delay', { timeout: 180_000 }, () => {
  it.each([1, 3])(
    'serves every request with /readyz 503 until a second SIGTERM ends it: %d workers',
    async (workers) => {
      const flags = ['--workers', String(workers), '--drain-delay', '1h'];
      const { program, port } = await startServerProgram(await temporaryFolder(), flags);
      expect(await readiness(port, workers)).toEqual([200]);
      program.kill('SIGTERM');
      await program.printed(/still serving for --drain-delay/);
      await expect.poll(() => readiness(port, workers)).toEqual([503]);
      for (let index = 0; index < workers * 2; index += 1) {
        const put = { method: 'PUT', target: `/files/${index}?${good}`, body: 'x' };
        expect((await requestOnce(port, put)).status).toBe(200);
        expect((await requestOnce(port, { target: `/files/${index}` })).text).toBe('x');
        expect((await requestOnce(port, { target: '/healthz' })).status).toBe(200);
      }
      program.kill('SIGTERM');
      expect(await program.ended()).toMatchObject({ code: 0, signal: null });
    },
  );

  it('stops in order on a SIGTERM that comes before the server says that it listens', async () => {
    const folder = await temporaryFolder();
    const program = new Program('filetracker-server', { args: ['-d', folder, '-p', '0', '--workers', '1'] });
    // The first worker is opening the store.
    await program.printed(/"rebuilt"/);
    program.kill('SIGTERM');
    const { code, output } = await program.ended();
    expect(code).toBe(0);
    expect(output).toMatch(/stopping: no new connections[^]*"stopped"/);
  });

  it('ends by itself', async () => {
    const { program } = await startServerProgram(await temporaryFolder(), ['--drain-delay', '0.2s']);
    program.kill('SIGTERM');
    const { code, output } = await program.ended();
    expect(code).toBe(0);
    expect(output).toMatch(/still serving for --drain-delay[^]*stopping: no new connections/);
  });

  it('holds for a worker that starts meanwhile', async () => {
    const flags = ['--workers', '1', '--drain-delay', '1h'];
    const { program, port } = await startServerProgram(await temporaryFolder(), flags);
    program.kill('SIGTERM');
    await expect.poll(() => readiness(port, 1)).toEqual([503]);
    const [, worker = ''] = await program.printed(/"pid":(\d+),"rebuilt"/);
    process.kill(Number(worker), 'SIGKILL');
    await program.printed(/a worker died/);
    expect(await readiness(port, 1)).toEqual([503]);
    program.kill('SIGINT');
    expect((await program.ended()).code).toBe(0);
  });

  it.each(['2h', '-1s', '1', 'NaN'])('refuses %j in one line', async (delay) => {
    const end = await run('filetracker-server', '--drain-delay', delay);
    expect(end).toMatchObject({ code: 2, output: '' });
    expect(end.errors).toMatch(/^[^\n]+\n(?:See [^\n]+\n)?$/);
  });
});
