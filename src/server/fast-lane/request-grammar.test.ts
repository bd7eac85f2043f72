import type { IncomingMessage } from 'node:http';
import { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { fc } from '../../../test/support/properties.ts';
import { createNodeServer } from '../connections/node-server.ts';
import { RequestReader, type LaneRequest } from './request-grammar.ts';

const socket = new Socket();

function read(text: string, basePath = ''): LaneRequest | undefined {
  return new RequestReader(socket, basePath).read(Buffer.from(text, 'latin1'));
}

/** The head of a GET with these lines. */
function get(...lines: string[]): string {
  return ['GET /files/a HTTP/1.1', ...lines, '', ''].join('\r\n');
}

/** What node:http makes of the bytes: its requests, and `undefined` for each error. */
async function readByNode(text: string): Promise<(IncomingMessage | undefined)[]> {
  const found: (IncomingMessage | undefined)[] = [];
  const server = createNodeServer({ headersMs: 10_000, stallMs: 10_000, idleMs: 10_000 }, undefined);
  server.on('request', (request) => found.push(request));
  server.on('checkContinue', (request) => found.push(request));
  server.on('clientError', () => found.push(undefined));
  const connection = new Duplex({ read: () => undefined, write: (_chunk, _encoding, done) => done() });
  server.emit('connection', connection);
  connection.push(Buffer.from(text, 'latin1'));
  await new Promise((resolve) => {
    setImmediate(resolve);
  });
  connection.destroy();
  return found;
}

describe('the grammar of the fast lane', () => {
  it.each([
    ['a plain GET', get('Host: x')],
    ['a HEAD', get('Host: x').replace('GET', 'HEAD')],
    ['an empty host', get('Host:')],
    ['what clients send', get('host: x:1', 'User-Agent: a (b; c)', 'ACCEPT-ENCODING: gzip', 'Accept: */*')],
    ['keep-alive', get('Host: x', 'Connection: Keep-Alive')],
    ['a condition', get('Host: x', 'If-None-Match: "a", W/"b"', 'Range: bytes=0-1')],
    ['blanks around a value', get('Host:   x  ')],
    ['a target with escapes', get('Host: x').replace('/files/a', '/files/a%20b/c@17')],
  ])('accepts %s', (_what, text) => {
    expect(read(text)).toMatchObject({ httpVersion: '1.1', socket });
  });

  it.each([
    ['another method', get('Host: x').replace('GET', 'PUT')],
    ['a method in lower case', get('Host: x').replace('GET', 'get')],
    ['HTTP/1.0', get('Host: x').replace('/1.1', '/1.0')],
    ['HTTP/1.10', get('Host: x').replace('/1.1', '/1.10')],
    ['no version', get('Host: x').replace(' HTTP/1.1', '')],
    ['another endpoint', get('Host: x').replace('/files/a', '/list/a')],
    ['an absolute target', get('Host: x').replace('/files/a', 'http://h/files/a')],
    ['a target with a blank', get('Host: x').replace('/files/a', '/files/a b')],
    ['a query', get('Host: x').replace('/files/a', '/files/a?b')],
    ['a fragment', get('Host: x').replace('/files/a', '/files/a#b')],
    ['two slashes in front', get('Host: x').replace('/files/a', '//files/a')],
    ['no Host', get('Accept: */*')],
    ['two Hosts', get('Host: x', 'host: y')],
    ['a header twice', get('Host: x', 'Accept: a', 'Accept: b')],
    ['an unknown header', get('Host: x', 'X-Unknown: 1')],
    ['a length', get('Host: x', 'Content-Length: 0')],
    ['a transfer coding', get('Host: x', 'Transfer-Encoding: chunked')],
    ['an expectation', get('Host: x', 'Expect: 100-continue')],
    ['an upgrade', get('Host: x', 'Connection: Upgrade', 'Upgrade: h2c')],
    ['the end of the connection', get('Host: x', 'Connection: close')],
    ['two options of the connection', get('Host: x', 'Connection: keep-alive, close')],
    ['a folded header', get('Host: x', 'Accept: a', ' b')],
    ['a blank before the colon', get('Host : x')],
    ['a blank before the name', get(' Host: x')],
    ['a tab in a value', get('Host: x\ty')],
    ['a NUL in a value', get('Host: x\0')],
    ['a letter beyond ASCII', get('Host: x\u00e9')],
    ['a bare line feed', get('Host: x\nAccept: y')],
    ['a bare carriage return', get('Host: x\rAccept: y')],
    ['line feeds alone', get('Host: x').replaceAll('\r', '')],
    ['an empty line in front', `\r\n${get('Host: x')}`],
    ['a part of a head', get('Host: x').slice(0, -1)],
    ['a head and a letter', `${get('Host: x')}G`],
    ['a head and a line end', `${get('Host: x')}\r\n`],
    ['two requests', get('Host: x').repeat(2)],
    ['a long head', get(`Host: ${'x'.repeat(4096)}`)],
    ['nothing', ''],
  ])('leaves %s to node:http', (_what, text) => {
    expect(read(text)).toBeUndefined();
  });

  it('accepts exactly 4 KiB', () => {
    const size = get('Host: ').length;
    expect(read(get(`Host: ${'x'.repeat(4096 - size)}`))).toBeDefined();
    expect(read(get(`Host: ${'x'.repeat(4097 - size)}`))).toBeUndefined();
  });

  it('accepts the files below the base path alone', () => {
    expect(read(get('Host: x').replace('/files', '/ft/files'), '/ft')?.url).toBe('/ft/files/a');
    expect(read(get('Host: x'), '/ft')).toBeUndefined();
    expect(read(get('Host: x').replace('/files', '/ftfiles'), '/ft')).toBeUndefined();
  });

  it('tells the requests of one connection apart, whatever header lines they have', () => {
    const reader = new RequestReader(socket, '');
    const hostOf = (text: string): string | undefined => reader.read(Buffer.from(text))?.headers.host;
    expect(
      [get('Host: x'), get('Host: x'), get('Host: y'), get('Host: y\n'), get('Host: x')].map(hostOf),
    ).toEqual(['x', 'x', 'y', undefined, 'x']);
  });
});

/** What may stand at any place of a request. */
const pieces = [
  ...'\r\n|\n|\r| |\t|:|,|;|"|\0|\u007f|\u0080|\u00ff|0|/|?|#|%|%0d%0a|a|A|_|@'.split('|'),
  'Host: y\r\n',
  'Content-Length: 5\r\n',
  'Transfer-Encoding: chunked\r\n',
  'Connection: close\r\n',
  'Connection: keep-alive\r\n',
  'Accept: a\r\n',
  '\r\n\r\n',
  ' HTTP/1.1',
  'GET /files/b HTTP/1.1\r\n',
];
const lines = [
  'Host: x',
  'Accept: */*',
  'accept-encoding:gzip',
  'If-None-Match: "a"',
  'Cookie:  a=b ',
  'Range: bytes=0-',
];
const change = fc.record({
  at: fc.nat(),
  removed: fc.nat(2),
  put: fc.constantFrom('', ...pieces),
});
const request = fc
  .record({
    method: fc.constantFrom('GET', 'GET', 'HEAD', 'PUT', 'HEA'),
    target: fc.constantFrom('/files/a', '/files/a/b@1', '/files/%41', '/files/', '/files'),
    lines: fc.shuffledSubarray(lines, { minLength: 1 }),
    changes: fc.array(change, { maxLength: 2 }),
  })
  .map(({ method, target, lines: own, changes }) => {
    let text = [`${method} ${target} HTTP/1.1`, ...own, '', ''].join('\r\n');
    for (const { at, removed, put } of changes) {
      const place = at % (text.length + 1);
      text = text.slice(0, place) + put + text.slice(place + removed);
    }
    return text;
  });

describe('whatever the fast lane accepts', () => {
  it('node:http accepts as one request without a body, with the same method, target and headers', async () => {
    let accepted = 0;
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(request, async (text) => {
        const own = read(text);
        if (own === undefined) {
          refused += 1;
          return;
        }
        accepted += 1;
        const found = await readByNode(text);
        expect(found).toHaveLength(1);
        const [theirs] = found;
        expect(theirs?.complete).toBe(true);
        expect(theirs?.method).toBe(own.method);
        expect(theirs?.url).toBe(own.url);
        expect(theirs?.httpVersion).toBe(own.httpVersion);
        expect(theirs?.rawHeaders).toEqual(own.rawHeaders);
        expect(theirs?.headers).toEqual(own.headers);
      }),
      { numRuns: 20_000 },
    );
    expect(accepted).toBeGreaterThan(1000);
    expect(refused).toBeGreaterThan(1000);
  });
});
