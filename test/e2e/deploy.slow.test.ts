import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { mergedText, MetricsHub } from '../../src/telemetry/metrics-hub.ts';
import { ServerMetrics } from '../../src/telemetry/server-metrics.ts';
import { Program, startServerProgram } from '../support/program.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const folder = fileURLToPath(new URL('../../deploy', import.meta.url));

/** The names of all metrics that a server shows, histograms by those of their parts. */
async function exportedNames(): Promise<ReadonlySet<string>> {
  const metrics = new ServerMetrics();
  metrics.showQuotas(() => []);
  const text = `${await mergedText([await metrics.snapshot()])}\n${await new MetricsHub().text()}`;
  const names = new Set<string>();
  for (const [, name = '', type] of text.matchAll(/^# TYPE (\w+) (\w+)$/gm)) {
    const parts = type === 'histogram' ? ['_bucket', '_sum', '_count'] : [''];
    for (const part of parts) names.add(name + part);
  }
  return names;
}

const metricName = /\b(?:filetracker|nodejs|process)_[a-z0-9_]+\b/g;

describe('deploy/', () => {
  it.each(['grafana/filetracker.json', 'prometheus/alerts.yml'])(
    '%s names only metrics there are',
    async (file) => {
      const text = await readFile(join(folder, file), 'utf8');
      const expressions = text.split('\n').filter((line) => /^\s*"?expr"?:/.test(line));
      const used = new Set(expressions.flatMap((line) => line.match(metricName) ?? []));
      const exported = await exportedNames();
      expect(used.size).toBeGreaterThan(5);
      expect([...used].filter((name) => !exported.has(name))).toEqual([]);
    },
  );

  it('grafana/filetracker.json shows every metric of ours', async () => {
    const text = await readFile(join(folder, 'grafana/filetracker.json'), 'utf8');
    const shown = new Set(text.match(metricName) ?? []);
    const families = [...(await exportedNames())].filter((name) => name.startsWith('filetracker_'));
    const missing = families.filter(
      (name) => ![name, name.replace(/_(?:sum|count)$/, '_bucket')].some((one) => shown.has(one)),
    );
    // Of a histogram of plain numbers the mean is shown, from its sum and count.
    expect(missing).toEqual(['filetracker_commit_changes_bucket']);
  });

  it('Dockerfile brings what the scale-out store needs, and asks where it is told whether it is well', async () => {
    const text = await readFile(join(folder, 'Dockerfile'), 'utf8');
    const [, expression = ''] = /engines=\$\(node -p "([^"]+)"\)/.exec(text) ?? [];
    const root = fileURLToPath(new URL('../..', import.meta.url));
    const engines = execFileSync(process.execPath, ['-p', expression], { cwd: root, encoding: 'utf8' });
    expect(engines).toMatch(/^pg@\d\S+ @aws-sdk\/client-s3@\d\S+ @aws-sdk\/s3-request-presigner@\d\S+\n$/);
    expect(text.indexOf('npm install --no-save')).toBeGreaterThan(text.indexOf('npm prune'));
    expect(text).toMatch(/^ENV FILETRACKER_HEALTH_URL=http:\/\/127\.0\.0\.1:9999\/healthz$/m);
    expect(text).toContain('COPY --from=build /build/deploy/health-check.mjs ./');
    expect(text).toMatch(/^HEALTHCHECK .* CMD \["node", "\/app\/health-check\.mjs"\]$/m);
  });

  const check = async (url: string): Promise<number | null> => {
    const child = spawn(process.execPath, [join(folder, 'health-check.mjs')], {
      env: { ...process.env, FILETRACKER_HEALTH_URL: url },
      stdio: 'inherit',
    });
    const [code] = (await once(child, 'exit')) as [number | null];
    return code;
  };

  it('health-check.mjs finds a server well that answers by HTTP, below a base path too', async () => {
    const { port } = await startServerProgram(await temporaryFolder(), ['--base-path', '/ft']);
    expect(await check(`http://127.0.0.1:${port}/ft/healthz`)).toBe(0);
    expect(await check(`http://127.0.0.1:${port}/healthz`)).toBe(1);
  });

  it('health-check.mjs finds a server well that answers by TLS, and none that is not there', async (context) => {
    const root = await temporaryFolder();
    const making = [
      'req',
      '-x509',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-keyout',
      'key.pem',
      '-out',
      'cert.pem',
    ];
    const made = spawnSync('openssl', [...making, '-subj', '/CN=files.example.org'], { cwd: root });
    if (made.status !== 0) context.skip('there is no openssl to make a certificate');
    const [key, cert] = [join(root, 'key.pem'), join(root, 'cert.pem')];
    const tls = ['--tls-key', key, '--tls-cert', cert, '--tls-client-ca', cert];
    const program = new Program('filetracker-server', {
      args: ['-d', join(root, 'store'), '-p', '0', '--workers', '1', ...tls],
    });
    const [, port = ''] = await program.printed(/listens on https:\/\/127\.0\.0\.1:(\d+)/);
    expect(await check(`http://127.0.0.1:${port}/healthz`)).toBe(0);
    expect(await check(`https://127.0.0.1:${port}/healthz`)).toBe(0);
    program.kill('SIGTERM');
    await program.ended();
    expect(await check(`http://127.0.0.1:${port}/healthz`)).toBe(1);
  });

  // `systemd-analyze` is on machines that run systemd; where it is missing there is nothing to check with, and
  // the test says so in its output instead of in its result.
  it('systemd/ is accepted by systemd, and well confined', async () => {
    if (spawnSync('systemd-analyze', ['--version']).status !== 0) {
      console.warn('systemd-analyze is not here: the units were not checked');
      return;
    }
    const units = await temporaryFolder();
    for (const unit of ['filetracker.service', 'filetracker.socket']) {
      await copyFile(join(folder, 'systemd', unit), join(units, unit));
    }
    const run = (...args: readonly string[]): string =>
      execFileSync('systemd-analyze', [...args], {
        cwd: units,
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'pipe'],
      });
    run('verify', join(units, 'filetracker.service'), join(units, 'filetracker.socket'));
    const report = run('security', '--offline=true', '--no-pager', join(units, 'filetracker.service'));
    const [, level] = /Overall exposure level for filetracker\.service: ([\d.]+)/.exec(report) ?? [];
    expect(Number(level)).toBeLessThan(2);
  });
});
