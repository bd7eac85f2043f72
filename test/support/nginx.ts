import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished } from 'vitest';
import { freePort } from './free-port.ts';
import { RawConnection } from './raw-http.ts';
import { temporaryFolder } from './temporary-folder.ts';

/** A proxy in front of a server, as docs/OPERATIONS.md sets it up, without TLS. */
export interface Proxy {
  readonly port: number;
  /** The requests that it has passed on, as it understood them: method and target. */
  passedOn(): Promise<readonly string[]>;
}

/** Starts nginx; it is killed when the test is over. */
export async function startNginx(upstreamPort: number): Promise<Proxy> {
  const folder = await temporaryFolder();
  const port = await freePort(0);
  const log = join(folder, 'passed.log');
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((kind) => `${kind}_temp_path ${join(folder, kind)};`)
    .join('\n  ');
  const text = `
daemon off;
master_process off;
pid ${join(folder, 'nginx.pid')};
error_log ${join(folder, 'error.log')};
events { worker_connections 256; }
http {
  ${temporary}
  log_format passed '$upstream_status $request_method $request_uri';
  access_log ${log} passed;
  keepalive_timeout 1s;
  client_header_timeout 1s;
  client_body_timeout 1s;
  upstream filetracker { server 127.0.0.1:${upstreamPort}; keepalive 64; }
  server {
    listen 127.0.0.1:${port};
    client_max_body_size 0;
    location / {
      proxy_pass http://filetracker;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_request_buffering off;
      proxy_buffering off;
    }
    location = /metrics { deny all; }
  }
}
`;
  const file = join(folder, 'nginx.conf');
  await writeFile(file, text);
  const child = spawn('nginx', ['-p', folder, '-c', file], {
    stdio: 'ignore',
    env: { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin` },
  });
  const ended = once(child, 'close');
  onTestFinished(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  await expect.poll(() => RawConnection.open(port).then(Boolean, () => false)).toBe(true);
  return {
    port,
    passedOn: async () => {
      const lines = (await readFile(log, 'utf8')).split('\n');
      return lines.filter((line) => /^\d/.test(line)).map((line) => line.slice(line.indexOf(' ') + 1));
    },
  };
}
