import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, copyFile, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { release } from '../../src/core/release.ts';
import { noise, prose } from '../support/contents.ts';
import { freePort } from '../support/free-port.ts';
import { programPath } from '../support/built-programs.ts';
import { Program, run, startServerProgram } from '../support/program.ts';
import { RawConnection, requestBytes, requestOnce, type RawAnswer } from '../support/raw-http.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { versionQuery } from '../support/test-server.ts';

const good = versionQuery();
const name = 'filetracker-server';

describe(name, () => {
  it('shows help that fits on 80 columns, and its version', async () => {
    const help = await run(name, '--help');
    expect(help.code).toBe(0);
    for (const flag of [
      '-p',
      '-l',
      '-d',
      '-L',
      '-D',
      '--log-level',
      '--log-config',
      '--fallback-url',
      '--workers',
    ]) {
      expect(help.output).toContain(flag);
    }
    for (const line of help.output.split('\n')) expect(line.length).toBeLessThanOrEqual(80);
    expect(await run(name, '--version')).toMatchObject({ code: 0, output: `${release}\n` });
  });

  it('refuses bounds that the catalog does not keep before it starts anything', async () => {
    const folder = join(await temporaryFolder(), 'none');
    const args = ['-d', folder, '--catalog', 'postgres://127.0.0.1:1/none', '--quota', '/p=1G'];
    const { code, output, errors } = await run(name, ...args);
    expect({ code, output }).toEqual({ code: 2, output: '' });
    expect(errors).toMatch(/^[^\n]*Cannot use --quota with --catalog: [^\n]+\n$/);
    await expect(access(folder)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('takes the flags that scripts call the legacy server with', async () => {
    const folder = await temporaryFolder();
    const log = join(folder, 'log');
    await writeFile(join(folder, 'log.json'), '{}');
    const program = new Program(name, {
      folder,
      environment: { FILETRACKER_DIR: join(folder, 'store') },
      args: [
        '-p',
        '0',
        '-l',
        '127.0.0.1',
        '-L',
        log,
        '-D',
        '--log-level',
        'INFO',
        '--log-config',
        'log.json',
        '--workers',
        '1',
      ],
    });
    const [, port] = await program.printed(/listens on http:\/\/127\.0\.0\.1:(\d+)/);
    expect((await requestOnce(Number(port), { target: '/version' })).status).toBe(200);
    program.kill('SIGTERM');
    expect(await program.ended()).toMatchObject({ code: 0, output: '' });
    expect(await readFile(log, 'utf8')).toContain('"target":"/version"');
  });

  it('prints its address and a command that works as it stands', async () => {
    const folder = await temporaryFolder();
    const { program, port } = await startServerProgram(folder);
    const [, command] = await program.printed(/Try: (.+)\n/);
    expect(command).toContain('curl');
    const [, target] = /"http:\/\/[^/]+(\/files\/[^"]+)"/.exec(command ?? '') ?? [];
    const date = new Date().toUTCString().slice(5, -4).replaceAll(' ', '+');
    const put = { method: 'PUT', target: target?.replace(/\$\(.*\)/, date) ?? '', body: 'hello\n' };
    expect((await requestOnce(port, put)).status).toBe(200);
    expect((await requestOnce(port, { target: '/files/hello.txt' })).text).toBe('hello\n');
  });

  it.each([
    [['--bogus'], 2, "unknown option '--bogus'"],
    [['extra'], 2, 'too many arguments'],
    [['-p', 'http'], 2, 'Cannot use --port "http": it must be a whole number'],
    [['--log-level', 'loud'], 2, 'Cannot use --log-level "loud"'],
    [['-d', '/dev/null/store'], 2, 'Cannot use the folder "/dev/null/store"'],
    [['-d', '/proc/store'], 2, 'its file system does not support folders'],
    [['-L', '/dev/null/log'], 2, 'Cannot write the log "/dev/null/log"'],
    [['--daemon'], 2, 'name a file for the log with -L'],
    [['-d', ''], 2, 'Cannot use --dir ""'],
    [['--fallback-mode', 'import'], 2, 'it needs --fallback-url'],
  ])('says in one line what is wrong with %j', async (args, code, text) => {
    const folder = await temporaryFolder();
    const end = await run(name, '-d', folder, '-p', '0', ...args);
    expect(end.code).toBe(code);
    expect(end.errors).toMatch(new RegExp(`^${name}: .*\\n(See ${name} --help\\n)?$`));
    expect(end.errors).toContain(text);
    expect(end.output).toBe('');
  });

  it('says that the port is in use, or the store', async () => {
    const [one, two] = [await temporaryFolder(), await temporaryFolder()];
    const { port } = await startServerProgram(one);
    const samePort = await run(name, '-d', two, '-p', String(port));
    expect(samePort).toMatchObject({
      code: 1,
      errors: expect.stringContaining('another program listens there'),
    });
    const sameStore = await run(name, '-d', one, '-p', '0');
    expect(sameStore).toMatchObject({
      code: 1,
      output: '',
      errors: expect.stringMatching(/^.*another process serves it.*\n$/),
    });
  });

  it('names the path that it may not use, and writes why into a log that is a file', async () => {
    const folder = await temporaryFolder();
    const log = join(folder, 'log');
    // A folder where the lock should be: what nobody, not even root, can open to write.
    await mkdir(join(folder, 'store', 'journal', 'lock'), { recursive: true });
    const end = await run(name, '-d', join(folder, 'store'), '-p', '0', '-L', log);
    expect(end).toMatchObject({ code: 1, output: '' });
    expect(end.errors).toMatch(/^[^\n]*\n$/);
    expect(end.errors).toContain(join(folder, 'store', 'journal', 'lock'));
    expect(await readFile(log, 'utf8')).toContain('a worker cannot start');
  });

  it('writes one structured line per request', async () => {
    const folder = await temporaryFolder();
    const { program, port } = await startServerProgram(folder);
    await requestOnce(port, { method: 'PUT', target: `/files/a?${good}`, body: 'x' });
    await requestOnce(port, { target: '/files/b%0A' });
    program.kill('SIGTERM');
    const { output, code } = await program.ended();
    expect(code).toBe(0);
    const lines = output
      .trimEnd()
      .split('\n')
      .map((line): unknown => JSON.parse(line));
    const put = {
      level: 30,
      method: 'PUT',
      target: `/files/a?${good}`,
      status: 200,
      sent: 0,
      from: '127.0.0.1',
    };
    expect(lines).toContainEqual(expect.objectContaining(put));
    const refused = { method: 'GET', target: '/files/b%0A', status: 400, code: 'invalid-name' };
    expect(lines).toContainEqual(expect.objectContaining(refused));
  });

  it('opens its log anew on SIGHUP', async () => {
    const folder = await temporaryFolder();
    const log = join(folder, 'log');
    const { program, port } = await startServerProgram(join(folder, 'store'), ['-L', log]);
    await requestOnce(port, { target: '/files/first' });
    await expect.poll(() => readFile(log, 'utf8')).toContain('/files/first');
    await rename(log, `${log}.1`);
    program.kill('SIGHUP');
    await expect.poll(() => readFile(log, 'utf8').catch(() => '')).toContain('log reopened');
    await requestOnce(port, { target: '/files/second' });
    await expect.poll(() => readFile(log, 'utf8')).toContain('/files/second');
    expect(await readFile(`${log}.1`, 'utf8')).not.toContain('/files/second');
  });

  it.each(['SIGTERM', 'SIGINT'] as const)('finishes what runs on %s, and exits with 0', async (signal) => {
    const folder = await temporaryFolder();
    const { program, port } = await startServerProgram(folder);
    const upload = await RawConnection.open(port);
    const headers = { 'Content-Length': '200000' };
    upload.send(requestBytes({ method: 'PUT', target: `/files/a?${good}`, headers }));
    await sleep(100);
    program.kill(signal);
    await program.printed(/stopping/);
    upload.send(noise(200_000));
    expect((await upload.answer()).status).toBe(200);
    expect((await program.ended()).code).toBe(0);
    const again = await startServerProgram(folder);
    expect((await requestOnce(again.port, { target: '/files/a' })).body.equals(noise(200_000))).toBe(true);
  });

  it.runIf(process.platform === 'linux')('ends though its log cannot be written', async () => {
    const { program, port } = await startServerProgram(await temporaryFolder(), ['-L', '/dev/full']);
    expect((await requestOnce(port, { target: '/healthz' })).status).toBe(200);
    program.kill('SIGTERM');
    expect((await program.ended()).code).toBe(0);
  });

  it.runIf(process.platform === 'linux')('serves though nothing that it prints can be written', async () => {
    const root = await temporaryFolder();
    const [pidFile, port] = [join(root, 'pid'), await freePort(0)];
    const flags = ['-d', join(root, 'store'), '-p', String(port), '--workers', '1', '--pid-file', pidFile];
    const words = [process.execPath, programPath(name), ...flags];
    const child = spawn('bash', ['-c', 'exec "$@" > /dev/full 2> /dev/full', 'bash', ...words]);
    onTestFinished(() => void child.kill('SIGKILL'));
    const ended = once(child, 'exit');
    await expect
      .poll(async () => (await requestOnce(port, { target: '/readyz' }).catch(() => undefined))?.status, {
        timeout: 40_000,
      })
      .toBe(200);
    child.kill('SIGTERM');
    expect(await ended).toEqual([0, null]);
  });

  it('says in one line that it cannot be loaded, as when too few files may be open', async () => {
    const root = await temporaryFolder();
    const alone = join(root, 'filetracker-server.cjs');
    await copyFile(programPath(name), alone);
    const child = spawn(process.execPath, [alone, '--help'], { stdio: ['ignore', 'ignore', 'pipe'] });
    let errors = '';
    child.stderr.on('data', (text) => (errors += String(text)));
    expect(await once(child, 'close')).toEqual([1, null]);
    expect(errors).toMatch(/^filetracker-server: Cannot load the program: [^\n]*\n$/);
  });

  it('stops at once on a second SIGTERM', async () => {
    const { program, port } = await startServerProgram(await temporaryFolder());
    const upload = await RawConnection.open(port);
    upload.send(
      requestBytes({ method: 'PUT', target: `/files/a?${good}`, headers: { 'Content-Length': '200000' } }),
    );
    await sleep(100);
    program.kill('SIGTERM');
    await program.printed(/stopping/);
    program.kill('SIGTERM');
    expect((await program.ended()).code).toBe(1);
  });

  it('keeps what it has acknowledged through kill -9', async () => {
    const folder = await temporaryFolder();
    const first = await startServerProgram(folder);
    for (const [path, body] of [
      ['/small', prose(100)],
      ['/large', prose(300_000)],
    ] as const) {
      expect(
        (await requestOnce(first.port, { method: 'PUT', target: `/files${path}?${good}`, body })).status,
      ).toBe(200);
    }
    const upload = await RawConnection.open(first.port);
    upload.send(
      requestBytes({
        method: 'PUT',
        target: `/files/half?${good}`,
        headers: { 'Content-Length': '200000' },
        body: noise(100_000),
      }),
    );
    await sleep(100);
    first.program.kill('SIGKILL');
    await first.program.ended();
    const { port } = await startServerProgram(folder);
    expect((await requestOnce(port, { target: '/list/' })).text).toBe('large\nsmall\n');
    expect((await requestOnce(port, { target: '/files/small' })).body.equals(prose(100))).toBe(true);
    expect((await requestOnce(port, { target: '/files/large' })).body.equals(prose(300_000))).toBe(true);
  });

  it('goes on, and loses nothing, when a worker is killed', async () => {
    const folder = await temporaryFolder();
    const { program, port } = await startServerProgram(folder, ['--workers', '2']);
    const put = (index: number): Promise<RawAnswer> =>
      requestOnce(port, { method: 'PUT', target: `/files/${index}?${good}`, body: 'x' });
    for (let index = 0; index < 10; index += 1) expect((await put(index)).status).toBe(200);
    const children = await readFile(`/proc/${program.pid}/task/${program.pid}/children`, 'utf8');
    const [worker] = children.trim().split(' ');
    process.kill(Number(worker), 'SIGKILL');
    await program.printed(/a worker died/);
    for (let index = 10; index < 20; index += 1) {
      await expect.poll(async () => (await put(index).catch(() => undefined))?.status).toBe(200);
    }
    const listed = (await requestOnce(port, { target: '/list/' })).text.trimEnd().split('\n');
    expect(listed).toHaveLength(20);
  });

  it('goes to the background with --daemon, once it serves', async () => {
    const folder = await temporaryFolder();
    const [pidFile, log] = [join(folder, 'pid'), join(folder, 'log')];
    const flags = ['-d', join(folder, 'store'), '-p', '0', '--daemon', '--pid-file', pidFile, '-L', log];
    const { code, output } = await run(name, ...flags);
    expect(code).toBe(0);
    const [, pid, port] = /process (\d+) on http:\/\/127\.0\.0\.1:(\d+)/.exec(output) ?? [];
    expect(await readFile(pidFile, 'utf8')).toBe(`${pid}\n`);
    expect((await requestOnce(Number(port), { target: '/healthz' })).status).toBe(200);
    const second = await run(name, ...flags);
    expect(second.code).toBe(1);
    expect(second.errors).toContain(`the server that runs as process ${pid}`);
    const other = ['-d', join(folder, 'other'), ...flags.slice(2)];
    expect((await run(name, ...other)).code).toBe(1);
    expect(await readFile(pidFile, 'utf8')).toBe(`${pid}\n`);
    const third = await run(name, ...flags.toSpliced(flags.indexOf('--pid-file'), 2));
    expect(third.errors).toContain('another process serves it');
    expect((await requestOnce(Number(port), { target: '/healthz' })).status).toBe(200);
    process.kill(Number(pid), 'SIGTERM');
    await expect.poll(() => readFile(log, 'utf8')).toContain('"stopped"');
    await expect(readFile(pidFile)).rejects.toThrow('ENOENT');
  });

  it('takes a folder that is there already, and a base path', async () => {
    const folder = await temporaryFolder();
    await mkdir(join(folder, 'store'));
    const { port, program } = await startServerProgram(join(folder, 'store'), ['--base-path', '/ft/']);
    await program.printed(/listens on http:\/\/127\.0\.0\.1:\d+\/ft,/);
    expect((await requestOnce(port, { target: '/ft/version' })).status).toBe(200);
    expect((await requestOnce(port, { target: '/version' })).status).toBe(404);
  });
});
