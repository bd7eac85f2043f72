import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { secureContextOf, trustedAuthorities } from '../../src/client/http/trusted-authorities.ts';
import { formatDate } from '../../src/protocol/dates.ts';
import { madeCertificate } from '../support/certificates.ts';
import { runProgram } from '../support/programs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { webServer } from '../support/web-server.ts';

vi.setConfig({ testTimeout: 120_000 });

test('SSL_CERT_FILE and SSL_CERT_DIR stand in for what the system trusts, and NODE_EXTRA_CA_CERTS adds to it', async () => {
  const [one, other] = [await madeCertificate(), await madeCertificate()];
  const folder = await temporaryFolder();
  mkdirSync(join(folder, 'below'));
  writeFileSync(join(folder, 'a.pem'), other.cert);
  writeFileSync(join(folder, 'b.txt'), 'no certificate');
  const [first, second] = [one.cert.trim(), other.cert.trim()];
  expect(trustedAuthorities({ SSL_CERT_FILE: one.certFile })).toEqual([first]);
  expect(trustedAuthorities({ SSL_CERT_DIR: `/nonexistent:${folder}` })).toEqual([second]);
  const both = { SSL_CERT_FILE: one.certFile, SSL_CERT_DIR: folder };
  expect(trustedAuthorities(both)).toEqual([first, second]);
  const system = trustedAuthorities({});
  expect(system.length).toBeGreaterThan(50);
  expect(trustedAuthorities({ NODE_EXTRA_CA_CERTS: one.certFile })).toEqual([...system, first]);
  expect(() => secureContextOf({ ca: other.cert }, { NODE_EXTRA_CA_CERTS: one.certFile })).not.toThrow();
});

test.each(['SSL_CERT_FILE', 'SSL_CERT_DIR', 'NODE_EXTRA_CA_CERTS'])(
  'a place without a certificate is refused by its name (%s)',
  async (variable) => {
    const folder = await temporaryFolder();
    const file = join(folder, 'a.pem');
    writeFileSync(file, 'no certificate');
    const path = variable === 'SSL_CERT_DIR' ? folder : file;
    expect(() => trustedAuthorities({ [variable]: path })).toThrow(
      new RegExp(`^Cannot use ${variable} "${path}": it holds no certificate`),
    );
  },
);

test('programs trust --tls-ca, SSL_CERT_FILE and NODE_EXTRA_CA_CERTS, and refuse a bad file by its name', async () => {
  const made = await madeCertificate();
  const { url } = await webServer((_request, response) => {
    response.writeHead(200, { 'Last-Modified': formatDate(9), 'Content-Length': '5' }).end('hello');
  }, made);
  const folder = await temporaryFolder();
  const words = ['-r', url, '-c', join(folder, 'cache'), 'version', '/a'];
  const stranger = await runProgram('filetracker', words);
  expect(stranger).toMatchObject({ code: 5, stderr: expect.stringContaining('self-signed certificate') });
  for (const environment of [
    { SSL_CERT_FILE: made.certFile },
    { NODE_EXTRA_CA_CERTS: made.certFile },
    { FILETRACKER_TLS_CA: made.certFile },
  ]) {
    expect(await runProgram('filetracker', words, { environment })).toMatchObject({ code: 0, stdout: '9\n' });
  }
  const flag = await runProgram('filetracker', ['--tls-ca', made.certFile, ...words]);
  expect(flag).toMatchObject({ code: 0, stdout: '9\n' });
  const broken = join(folder, 'broken.pem');
  writeFileSync(broken, made.cert.replace(/\n[A-Za-z0-9+/]{10}/, '\nAAAAAAAAAA'));
  for (const [file, state] of [
    [made.keyFile, 'it holds no certificate as PEM'],
    [broken, 'a certificate in it cannot be read'],
  ] as const) {
    const refused = await runProgram('filetracker', ['--tls-ca', file, ...words]);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain(`Cannot use the authority "${file}": ${state}`);
  }
});
