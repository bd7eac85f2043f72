import { writeFileSync } from 'node:fs';
import type { TLSSocket } from 'node:tls';
import { join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { Client } from '../../src/client/client.ts';
import type { ClientOptions } from '../../src/client/client-options.ts';
import { formatDate } from '../../src/protocol/dates.ts';
import { madeCertificate } from '../support/certificates.ts';
import { servedStore } from '../support/client-server.ts';
import { collected, prose } from '../support/contents.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { webServer, type WebServer } from '../support/web-server.ts';

vi.setConfig({ testTimeout: 60_000 });

const quick = { retries: { retriesMax: 0 }, stallTimeoutMs: 5000 };

function clientOf(remoteUrl: string, options: ClientOptions = {}): Client {
  const client = new Client({ remoteUrl, ...quick, ...options });
  onTestFinished(() => client.close());
  return client;
}

/** A server that has moved to another address. */
function movedTo(url: string, status: number): Promise<WebServer> {
  return webServer((request, response) => {
    response.writeHead(status, { Location: `${url}${request.url}`, Connection: 'close' }).end();
  });
}

test.each([301, 302, 307, 308])(
  'every request follows a %i, with its method and its body',
  async (status) => {
    const { url, requests } = await servedStore();
    const moved = await movedTo(url, status);
    const client = clientOf(moved.url);
    const folder = await temporaryFolder();
    for (const bytes of [prose(1000), prose(3_000_000)]) {
      const path = join(folder, 'local');
      writeFileSync(path, bytes);
      expect(await client.putFile('/d/a@5', path)).toMatchObject({ version: 5, stored: true });
      expect((await collected((await client.getStream('/d/a')).stream)).equals(bytes)).toBe(true);
      expect(await client.fileVersion('/d/a')).toBe(5);
      const listed: string[] = [];
      for await (const name of client.listRemoteFiles({ subpath: '/d' })) listed.push(name);
      for await (const { name } of client.listRemoteEntries()) listed.push(name);
      expect(listed).toEqual(['/d/a', '/d/a']);
      await client.deleteFile('/d/a@5');
      expect(await client.exists('/d/a')).toBe(false);
    }
    expect(new Set(requests.map(({ method }) => method))).toEqual(new Set(['GET', 'HEAD', 'PUT', 'DELETE']));
    expect(requests.length).toBe(moved.requests.length);
  },
);

test('a 303 is followed when reading, and its address is named when something was to be changed', async () => {
  const { url } = await servedStore();
  const seen = await movedTo(url, 303);
  const client = clientOf(seen.url);
  expect(await client.exists('/a')).toBe(false);
  const path = join(await temporaryFolder(), 'local');
  writeFileSync(path, 'x');
  await expect(client.putFile('/a@5', path)).rejects.toMatchObject({
    code: 'protocol',
    message: expect.stringContaining(`"${url}/files/a?…"`),
  });
});

test.each([
  ['http://[bad', /it redirects to "http:\/\/\[bad", which is no http or https address/],
  ['ftp://me:SECRET@h/x', /it redirects to "ftp:\/\/…@h\/x", which is no http or https address/],
  ['javascript:alert(1)', /which is no http or https address/],
  ['\u0001', /Cannot look at "\/a"/],
  [`http://h/${'x'.repeat(8000)}`, /Cannot look at "\/a" at "http.{0,300}$/],
  [undefined, /it responded with status 302 but no Location/],
])('a redirect to %j ends in one clear line', async (location, expected) => {
  const server = await webServer((_request, response) => {
    response.socket?.end(
      `HTTP/1.1 302 Found\r\n${location === undefined ? '' : `Location: ${location}\r\n`}Content-Length: 0\r\n\r\n`,
    );
  });
  const client = clientOf(server.url, { proxy: false, connectTimeoutMs: 2000 });
  const failure = await client.stat('/a').catch((error: unknown) => error);
  expect(failure).toMatchObject({ message: expect.stringMatching(expected) });
  expect(['protocol', 'unreachable', 'timeout']).toContain((failure as { code: string }).code);
  expect(String(failure)).not.toContain('SECRET');
});

test('a loop of redirects ends, and says where it leads', async () => {
  const server: WebServer = await webServer((request, response) => {
    response.writeHead(307, { Location: `${request.url}x` }).end('moved');
  });
  await expect(clientOf(server.url).stat('/a')).rejects.toMatchObject({
    code: 'protocol',
    message: expect.stringMatching(/it redirects more than 5 times, at last to "http:.*\/axxxxxx"$/),
  });
  expect(server.requests.length).toBe(6);
});

test('another origin gets neither the credentials of the address nor the certificate of the client', async () => {
  const made = await madeCertificate();
  const shown: unknown[] = [];
  const other = await webServer(
    (request, response) => {
      shown.push((request.socket as TLSSocket).getPeerCertificate().subject, request.headers.authorization);
      response.writeHead(request.url?.startsWith('/files/secret') === true ? 401 : 200, {
        'Last-Modified': formatDate(9),
        'Content-Length': '0',
      });
      response.end();
    },
    Object.assign({ requestCert: true, rejectUnauthorized: false }, made),
  );
  const own = await webServer(
    (request, response) => {
      shown.push((request.socket as TLSSocket).getPeerCertificate().subject, request.headers.authorization);
      const target = request.url?.startsWith('/files/own') === true ? '/here' : `${other.url}${request.url}`;
      if (request.url === '/here') response.writeHead(200, { 'Last-Modified': formatDate(8) }).end();
      else response.writeHead(307, { Location: target }).end();
    },
    Object.assign({ requestCert: true, rejectUnauthorized: false }, made),
  );
  const tls = { ca: made.cert, cert: made.cert, key: made.key };
  const client = clientOf(own.url.replace('//', '//me:pw@'), { tls });
  const basic = `Basic ${Buffer.from('me:pw').toString('base64')}`;
  expect(await client.fileVersion('/a')).toBe(9);
  expect(shown.splice(0)).toEqual([{ CN: 'localhost' }, basic, undefined, undefined]);
  expect(await client.fileVersion('/own')).toBe(8);
  expect(shown.splice(0)).toEqual([{ CN: 'localhost' }, basic, { CN: 'localhost' }, basic]);
  await expect(client.stat('/secret')).rejects.toMatchObject({
    code: 'unauthorized',
    message: expect.stringContaining(`"${own.url}" redirects to "${other.url}"`),
  });
});
