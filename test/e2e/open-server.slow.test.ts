import { createHash, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { gzipSync } from 'node:zlib';
import { request as tlsRequest } from 'node:https';
import { copyFile, readdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { Program, run, startServerProgram } from '../support/program.ts';
import { RawConnection, requestOnce, type RawAnswer } from '../support/raw-http.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { versionQuery } from '../support/test-server.ts';

const name = 'filetracker-server';

function put(
  port: number,
  path: string,
  body: string,
  headers: Record<string, string> = {},
): Promise<RawAnswer> {
  return requestOnce(port, { method: 'PUT', target: `/files${path}?${versionQuery()}`, body, headers });
}

async function addToken(folder: string, token: string, ...more: readonly string[]): Promise<string> {
  const { code, output, errors } = await run(name, 'token', 'add', token, '--create', '-d', folder, ...more);
  expect({ code, errors }).toMatchObject({ code: 0 });
  return output.trim();
}

describe('filetracker-server token', () => {
  it('adds, lists and removes tokens', async () => {
    const folder = await temporaryFolder();
    const flags = ['--prefix', '/p', '--prefix', '/q/', '--rights', 'read,list', '--expires', '90d'];
    const secret = await addToken(folder, 'judge', ...flags);
    expect(secret).toMatch(/^ft_[\w-]{51}$/);
    const listed = await run(name, 'token', 'ls', '-d', folder, '--json');
    expect(JSON.parse(listed.output)).toMatchObject({ name: 'judge', prefixes: ['/p', '/q'] });
    expect(listed.output).not.toContain(secret.slice(11));
    expect((await run(name, 'token', 'rm', 'judge', '-d', folder)).code).toBe(0);
    expect((await run(name, 'token', 'ls', '-d', folder)).output).toBe('');
    expect((await run(name, 'token', 'rm', 'judge', '-d', folder)).code).toBe(3);
    expect((await run(name, 'token', 'add', 'x', '-d', folder, '--rights', 'read')).code).toBe(2);
  });

  it('closes and opens a running server of two workers', async () => {
    const folder = await temporaryFolder();
    const { port } = await startServerProgram(folder, ['--workers', '2']);
    expect((await put(port, '/a', 'x')).status).toBe(200);
    const secret = await addToken(folder, 'judge', '--prefix', '/', '--rights', 'read');
    const get = async (headers: Record<string, string>): Promise<number> =>
      (await requestOnce(port, { target: '/files/a', headers })).status;
    /** The same from both workers, to which connections go in turn. */
    const both = async (headers: Record<string, string>): Promise<readonly number[]> => [
      await get(headers),
      await get(headers),
    ];
    const poll = { timeout: 60_000 };
    await expect.poll(() => both({}), poll).toEqual([401, 401]);
    expect(await both({ Authorization: `Bearer ${secret}` })).toEqual([200, 200]);
    await run(name, 'token', 'rm', 'judge', '-d', folder);
    await expect.poll(() => both({ Authorization: `Bearer ${secret}` }), poll).toEqual([401, 401]);
  });
});

describe('an open server', () => {
  it('warns loudly when it listens beyond loopback without tokens', async () => {
    const folder = await temporaryFolder();
    const program = new Program(name, { args: ['-d', folder, '-p', '0', '-l', '0.0.0.0'] });
    await program.printed(/WARNING: OPEN TO ALL/);
  });

  it('says what is wrong with a flag', async () => {
    for (const flags of [
      ['--anonymous', 'some'],
      ['--quota', 'p=1G'],
      ['--tls-cert', '/nowhere'],
      ['--stall-timeout', '0'],
      ['--uploads-max', '0'],
    ]) {
      const { code, errors } = await run(name, '-p', '0', ...flags);
      expect({ flags, code }).toEqual({ flags, code: 2 });
      expect(errors).toContain(flags[0]);
    }
  });
});

describe('metrics', () => {
  /** The value of a metric line, labels included in its name. */
  function valueOf(text: string, metric: string): number {
    const line = text.split('\n').find((candidate) => candidate.startsWith(`${metric} `));
    return Number(line?.slice(metric.length + 1) ?? Number.NaN);
  }

  it('are summed over workers, and never shrink when one is killed', async () => {
    const folder = await temporaryFolder();
    const { port, program } = await startServerProgram(folder, ['--workers', '2']);
    for (let index = 0; index < 6; index += 1) await put(port, `/a${index}`, `content ${index}`);
    const show = async (): Promise<string> => (await requestOnce(port, { target: '/metrics' })).text;
    const puts = 'filetracker_requests_total{operation="put",status="200"}';
    const text = await show();
    expect(valueOf(text, puts)).toBe(6);
    expect(valueOf(text, 'filetracker_entries')).toBe(6);
    expect(valueOf(text, 'filetracker_request_duration_seconds_count{operation="put"}')).toBe(6);
    expect(valueOf(text, 'filetracker_commit_changes_sum')).toBe(6);
    expect(valueOf(text, 'filetracker_worker_deaths_total')).toBe(0);
    const children = execFileSync('pgrep', ['-P', String(program.pid)], { encoding: 'utf8' })
      .trim()
      .split('\n');
    process.kill(Number(children[0]), 'SIGKILL');
    await expect
      .poll(async () => valueOf(await show(), 'filetracker_worker_deaths_total'), { timeout: 60_000 })
      .toBe(1);
    expect(valueOf(await show(), puts)).toBe(6);
  });

  it('show the limits beside what they bound, and nothing where there is none', async () => {
    const folder = await temporaryFolder();
    const flags = ['--store-size-max', '1M', '--uploads-max', '7', '--connections-max', '50'];
    const { port } = await startServerProgram(folder, ['--workers', '2', ...flags]);
    const { text } = await requestOnce(port, { target: '/metrics' });
    expect(valueOf(text, 'filetracker_stored_bytes_max')).toBe(1024 ** 2);
    expect(valueOf(text, 'filetracker_uploads_max')).toBe(7);
    expect(valueOf(text, 'filetracker_connections_max')).toBe(50);
    expect(valueOf(text, 'filetracker_free_bytes_min')).toBeGreaterThan(0);
    expect(valueOf(text, 'filetracker_entries_max')).toBeNaN();
    // Asked for by the first put alone; a 0 would be taken for a disk that is full.
    expect(valueOf(text, 'filetracker_free_bytes')).toBeNaN();
  });

  it('tell of a verification, and still do when the server is started anew', async () => {
    const folder = await temporaryFolder();
    const { port, program } = await startServerProgram(folder, ['--workers', '1']);
    const bytes = randomBytes(40_000);
    await put(port, '/sound', 'small');
    await put(port, '/large', bytes.toString('latin1'));
    const show = async (at: number): Promise<string> => (await requestOnce(at, { target: '/metrics' })).text;
    expect(valueOf(await show(port), 'filetracker_verification_finished_timestamp_seconds')).toBeNaN();
    const files = await readdir(join(folder, 'blobs'), { recursive: true, withFileTypes: true });
    const [blob] = files.filter((file) => file.isFile());
    await truncate(join(blob?.parentPath ?? '', blob?.name ?? ''), 1000);
    await requestOnce(port, { method: 'POST', target: '/admin/verify' });
    const damaged = 'filetracker_verification_damaged_blobs';
    await expect.poll(async () => valueOf(await show(port), damaged), { timeout: 60_000 }).toBe(1);
    const text = await show(port);
    expect(valueOf(text, 'filetracker_verified_blobs_total')).toBe(2);
    expect(valueOf(text, 'filetracker_verified_bytes_total')).toBeGreaterThan(1000);
    expect(valueOf(text, 'filetracker_verification_damaged_total')).toBe(1);
    const finished = 'filetracker_verification_finished_timestamp_seconds';
    expect(Math.abs(valueOf(text, finished) - Date.now() / 1000)).toBeLessThan(60);
    program.kill('SIGTERM');
    await program.ended();
    const again = await startServerProgram(folder, ['--workers', '1']);
    expect(valueOf(await show(again.port), damaged)).toBe(1);
    expect(valueOf(await show(again.port), finished)).toBe(valueOf(text, finished));
  });
});

describe('limits', () => {
  it('hold for the store, whichever of its workers is asked', async () => {
    const folder = await temporaryFolder();
    const limits = ['--workers', '2', '--files-max', '4', '--quota', '/p=1K,2', '--quota', '/q=10B'];
    const { port, program } = await startServerProgram(folder, limits);
    const fifty = await Promise.all(
      Array.from(
        { length: 50 },
        async (_, index) => (await put(port, `/p/${index}`, `content ${index}`)).status,
      ),
    );
    expect(fifty.filter((status) => status === 200)).toHaveLength(2);
    expect(fifty.filter((status) => status === 507)).toHaveLength(48);
    const refused = await put(port, '/p/more', 'x');
    expect(refused.headers.get('x-exception')).toContain('"/p" holds its maximum of 2 files');
    expect((await put(port, '/q/a', 'x'.repeat(11))).status).toBe(507);
    expect((await put(port, '/q/a', 'x'.repeat(10))).status).toBe(200);
    expect((await put(port, '/r', 'x')).status).toBe(200);
    expect((await put(port, '/s', 'x')).headers.get('x-exception')).toContain(
      '"/" holds its maximum of 4 files',
    );
    // Who leads next counts what is there.
    const [first] = execFileSync('pgrep', ['-P', String(program.pid)], { encoding: 'utf8' }).split('\n');
    process.kill(Number(first), 'SIGKILL');
    const target = `/files/r?${versionQuery()}`;
    const remove = async (): Promise<number> =>
      (await requestOnce(port, { method: 'DELETE', target })).status;
    await expect.poll(() => remove().catch(() => 0), { timeout: 60_000 }).toBe(200);
    expect((await put(port, '/p/more', 'x')).status).toBe(507);
    expect((await put(port, '/s', 'x')).status).toBe(200);
    expect((await put(port, '/t', 'x')).status).toBe(507);
    const metrics = (await requestOnce(port, { target: '/metrics' })).text;
    expect(metrics).toContain('filetracker_quota_files{prefix="/p"} 2\n');
    expect(metrics).toContain('filetracker_refused_requests_total{operation="put",reason="quota-exceeded"}');
  });

  it('have an answer for each of them', async () => {
    const folder = await temporaryFolder();
    const flags = ['--workers', '1', '--file-size-max', '1K', '--rate-max', '5'];
    const { port } = await startServerProgram(folder, flags);
    const large = await put(port, '/large', 'x'.repeat(1025));
    expect(large.status).toBe(413);
    const answers = await Promise.all(
      Array.from({ length: 40 }, () => requestOnce(port, { target: '/files/absent' })),
    );
    const limited = answers.filter(({ status }) => status === 429);
    expect(limited.length).toBeGreaterThan(5);
    expect(limited[0]?.headers.get('retry-after')).toBe('1');
  });

  it('refuse uploads, and nothing else, where the disk is too full', async () => {
    const folder = await temporaryFolder();
    const { port } = await startServerProgram(folder, ['--workers', '1', '--free-space-min', '5000T']);
    const refused = await put(port, '/a', 'x');
    expect(refused.status).toBe(507);
    expect(refused.headers.get('x-exception')).toContain('too little space');
    expect((await requestOnce(port, { target: '/files/a' })).status).toBe(404);
  });

  const noise = (byte: number): string => createHash('sha512').update(`${byte}`).digest('base64');

  it.each(['whole', 'chunked', 'gzip'])(
    'bound what the contents take together, and do not tell by that which are stored: %s',
    async (form) => {
      const folder = await temporaryFolder();
      const { port } = await startServerProgram(folder, ['--workers', '1', '--store-size-max', '350B']);
      const send = async (name: string, content: string): Promise<string> => {
        const gzip = form === 'gzip';
        const plain = gzip ? gzipSync(content) : Buffer.from(content);
        const size = Buffer.from(`${plain.length.toString(16)}\r\n`);
        const body = form === 'chunked' ? Buffer.concat([size, plain, Buffer.from('\r\n0\r\n\r\n')]) : plain;
        const headers = {
          ...(gzip && { 'Content-Encoding': 'gzip' }),
          ...(form === 'chunked' && { 'Transfer-Encoding': 'chunked' }),
          'SHA256-Checksum': createHash('sha256').update(content).digest('hex'),
        };
        const target = `/files${name}?${versionQuery()}`;
        const answer = await requestOnce(port, { method: 'PUT', target, body, headers });
        return `${answer.status} ${answer.text}`;
      };
      for (const byte of [3, 5]) expect(await send(`/n${byte}`, noise(byte))).toBe('200 ');
      expect(await send('/again', noise(3))).toBe('200 ');
      for (const byte of [7, 11, 13]) await send(`/n${byte}`, noise(byte));
      expect(await send('/x', noise(3))).toMatch(/^507 /);
      expect(await send('/x', noise(3))).toBe(await send('/x', noise(17)));
      // What was acknowledged can be sent again, as after an answer that got lost.
      expect(await send('/n3', noise(3))).toBe('200 ');
    },
  );

  it('refuse an upload that does not fit before its body is sent', async () => {
    const folder = await temporaryFolder();
    const { port } = await startServerProgram(folder, [
      '--workers',
      '1',
      '--files-max',
      '1',
      '--store-size-max',
      '200B',
    ]);
    const ask = async (name: string, size: number): Promise<number> => {
      const connection = await RawConnection.open(port);
      connection.send(
        `PUT /files${name}?${versionQuery()} HTTP/1.1\r\nHost: x\r\nContent-Length: ${size}\r\nExpect: 100-continue\r\n\r\n`,
      );
      return (await connection.answer('PUT')).status;
    };
    expect(await ask('/a', 201)).toBe(507);
    expect(await ask('/a', 200)).toBe(100);
    expect((await put(port, '/a', 'x')).status).toBe(200);
    expect(await ask('/b', 1)).toBe(507);
    expect(await ask('/a', 1)).toBe(100);
  });
});

describe('TLS', () => {
  /** Keys and certificates made on the spot: an authority, the server's, and a client's of that name. */
  async function makeCertificates(folder: string, client: string): Promise<void> {
    const openssl = (...args: readonly string[]): unknown =>
      execFileSync('openssl', [...args], { cwd: folder, stdio: 'pipe' });
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
    openssl(
      'req',
      '-x509',
      ...curve,
      '-keyout',
      'ca.key',
      '-out',
      'ca.pem',
      '-subj',
      '/CN=authority',
      '-days',
      '2',
    );
    for (const [file, subject] of [
      ['server', '/CN=localhost'],
      ['second', '/CN=second'],
      ['client', `/CN=${client}`],
    ] as const) {
      openssl('req', ...curve, '-keyout', `${file}.key`, '-out', `${file}.csr`, '-subj', subject);
      openssl(
        'x509',
        '-req',
        '-in',
        `${file}.csr`,
        '-CA',
        'ca.pem',
        '-CAkey',
        'ca.key',
        '-out',
        `${file}.pem`,
        '-days',
        '2',
        '-CAcreateserial',
      );
    }
    openssl(
      'req',
      '-x509',
      ...curve,
      '-keyout',
      'other.key',
      '-out',
      'other.pem',
      '-subj',
      `/CN=${client}`,
      '-days',
      '2',
    );
  }

  interface Reached {
    readonly status: number;
    readonly subject: string;
  }

  async function get(port: number, folder: string, client?: string): Promise<Reached> {
    const pem = async (file: string): Promise<Buffer> => readFile(join(folder, file));
    const identity =
      client === undefined ? {} : { key: await pem(`${client}.key`), cert: await pem(`${client}.pem`) };
    const request = tlsRequest({
      host: '127.0.0.1',
      port,
      path: '/files/a',
      ca: await pem('ca.pem'),
      checkServerIdentity: () => undefined,
      agent: false,
      ...identity,
    });
    request.end();
    const [answer] = await once(request, 'response');
    const { subject } = answer.socket.getPeerCertificate();
    answer.resume();
    return { status: answer.statusCode, subject: subject.CN };
  }

  it('serves, knows clients by certificates, and takes new ones on SIGHUP', async () => {
    const folder = await temporaryFolder();
    await makeCertificates(folder, 'judge');
    const store = join(folder, 'store');
    await addToken(store, 'judge', '--prefix', '/', '--rights', 'read');
    const flags = ['--tls-cert', 'server.pem', '--tls-key', 'server.key', '--tls-client-ca', 'ca.pem'];
    const program = new Program(name, { folder, args: ['-d', store, '-p', '0', ...flags, '-L', 'log'] });
    const [, port] = await program.printed(/listens on https:\/\/127\.0\.0\.1:(\d+)/);
    expect(await get(Number(port), folder)).toEqual({ status: 401, subject: 'localhost' });
    expect(await get(Number(port), folder, 'client')).toEqual({ status: 404, subject: 'localhost' });
    await expect(get(Number(port), folder, 'second')).resolves.toMatchObject({ status: 401 });
    await expect(get(Number(port), folder, 'other')).rejects.toThrow();
    const plain = await RawConnection.open(Number(port));
    plain.send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await plain.closed();
    await copyFile(join(folder, 'second.pem'), join(folder, 'server.pem'));
    await copyFile(join(folder, 'second.key'), join(folder, 'server.key'));
    program.kill('SIGHUP');
    await expect
      .poll(async () => (await get(Number(port), folder)).subject, { timeout: 60_000 })
      .toBe('second');
    // Who never ends his handshake does not hold up the end of the server.
    await RawConnection.open(Number(port));
    const start = performance.now();
    program.kill('SIGTERM');
    expect(await program.ended()).toMatchObject({ code: 0 });
    expect(performance.now() - start).toBeLessThan(10_000);
  });

  it('refuses in a line what does not go together', { timeout: 300_000 }, async () => {
    const folder = await temporaryFolder();
    await makeCertificates(folder, 'judge');
    await writeFile(join(folder, 'empty.pem'), 'no certificate\n');
    const whole = await Promise.all(['server.key', 'server.pem'].map((file) => readFile(join(folder, file))));
    await writeFile(join(folder, 'both.pem'), Buffer.concat(whole));
    const start = (cert: string, key: string, authority = 'ca.pem'): Program => {
      const flags = ['--tls-cert', cert, '--tls-key', key, '--tls-client-ca', authority, '-L', 'log'];
      return new Program(name, { folder, args: ['-d', 'store', '-p', '0', '--workers', '1', ...flags] });
    };
    for (const [cert, key, authority, told] of [
      [
        'server.pem',
        'second.key',
        'ca.pem',
        /key ".*second\.key" for TLS: it does not belong to .*server\.pem"/,
      ],
      ['server.key', 'server.pem', 'ca.pem', /key ".*server\.pem" for TLS: it is not a private key/],
      ['server.key', 'server.key', 'ca.pem', /certificate ".*server\.key" for TLS: it is not a certificate/],
      [
        'server.pem',
        'server.key',
        'empty.pem',
        /certificate ".*empty\.pem" for TLS: it is not a certificate/,
      ],
      ['none.pem', 'server.key', 'ca.pem', /file ".*none\.pem" for TLS: it cannot be read \(ENOENT\)/],
    ] as const) {
      const { code, errors } = await start(cert, key, authority).ended();
      expect(code, errors).toBe(2);
      expect(errors).toMatch(/^[^\n]*\n$/);
      expect(errors).toMatch(told);
    }
    expect(await readFile(join(folder, 'log'), 'utf8')).not.toContain('"stack"');
    await start('both.pem', 'both.pem').printed(/listens on https/);
  });
});
