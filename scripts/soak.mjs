// `npm run test:soak`: a server of several workers under a mixed load, with idle connections beside it and a
// worker killed now and then. Every answer is checked against what the client knows it must be. Options:
//   --seconds 600  --workers 2  --active 200  --idle 1000  --kill-every 20  --pause 100 (ms between requests)
//   --built  takes dist/ as it is
// Prints one JSON object of figures, and ends with 1 if an answer was wrong or a request failed for no reason.
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { Agent, request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const text = (preset) => ({ type: 'string', default: String(preset) });
const { values: options } = parseArgs({
  options: {
    seconds: text(600),
    workers: text(2),
    active: text(200),
    idle: text(1000),
    'kill-every': text(20),
    pause: text(100),
    built: { type: 'boolean', default: false },
  },
});
if (!options.built) {
  const { prepare } = await import('./prepare.mjs');
  await prepare();
}
const seconds = Number(options.seconds);
const pauseMs = Number(options.pause);

/** What happened; `unexpected` and `wrong` must stay empty. */
const figures = { requests: 0, byOperation: {}, brokenByKills: 0, kills: 0, wrong: [], unexpected: [] };
const latenciesMs = [];
const stop = new AbortController();

// --- The server -------------------------------------------------------------------------------------------

async function startServer(folder) {
  const program = join(root, 'dist', 'cli', 'filetracker-server.cjs');
  const args = [
    '-d',
    folder,
    '-p',
    '0',
    '--workers',
    options.workers,
    '--log-level',
    'error',
    '--gc-grace',
    '5s',
  ];
  const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'inherit', 'pipe'] });
  let printed = '';
  for await (const piece of child.stderr) {
    printed += piece;
    const found = /listens on http:\/\/127\.0\.0\.1:(\d+)/.exec(printed);
    if (found !== null) {
      child.stderr.resume();
      return { child, port: Number(found[1]) };
    }
  }
  throw new Error(`the server did not start: ${printed}`);
}

function childrenOf(pid) {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .trim()
    .split(' ')
    .filter(Boolean)
    .map(Number);
}

/** Private memory of a server's processes in bytes: what they share, and the page cache, is not theirs. */
function memoryOf(pid) {
  let sum = 0;
  for (const process of [pid, ...childrenOf(pid)]) {
    try {
      const found = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${process}/status`, 'utf8'));
      sum += Number(found?.[1] ?? 0) * 1024;
    } catch {
      // It ended between the two looks.
    }
  }
  return sum;
}

/** The ports of the clients whose connections a process holds. */
function clientPortsOf(pid) {
  const inodes = new Set();
  for (const descriptor of readdirSync(`/proc/${pid}/fd`)) {
    try {
      const found = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${descriptor}`));
      if (found !== null) inodes.add(found[1]);
    } catch {
      // It was closed between the two looks.
    }
  }
  const ports = new Set();
  for (const line of readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1)) {
    const fields = line.trim().split(/\s+/);
    if (inodes.has(fields[9])) ports.add(Number.parseInt(fields[2].split(':')[1], 16));
  }
  return ports;
}

// --- One connection and what it knows ---------------------------------------------------------------------

/** Ports of connections that a kill has broken, or may have. */
const killedPorts = new Set();
let killedMs = 0;

class BrokenByKill extends Error {}

class Client {
  constructor(port, number) {
    this.port = port;
    this.number = number;
    this.agent = new Agent({ keepAlive: true, maxSockets: 1 });
    /** Name to the contents that may be there: one, or several after a broken change; undefined is "no file". */
    this.files = new Map();
    /** Name to what broken changes leave: one may still be made later, until a newer version is acknowledged. */
    this.late = new Map();
    /** Name to the contents that were there and must not come back; for the report of what is wrong. */
    this.past = new Map();
    this.version = 1_700_000_000;
  }

  send(method, path, body, headers = {}) {
    figures.requests += 1;
    const startMs = performance.now();
    const { agent, port } = this;
    return new Promise((resolve, reject) => {
      let socket;
      let answered = false;
      const request = httpRequest({ agent, port, host: '127.0.0.1', method, path, headers });
      request.on('socket', (given) => {
        socket = given;
        if (given.connecting) given.once('connect', () => (given.ownPort = given.localPort));
      });
      const fail = (error) => {
        // A connection without an answer yet may have been on its way to the worker when that was killed.
        const fresh = !socket?.hasAnswered && performance.now() - killedMs < 5000;
        if (answered) return;
        answered = true;
        if (killedPorts.has(socket?.ownPort) || fresh) reject(new BrokenByKill());
        else reject(new Error(`${method} ${path}: ${error.message}`));
      };
      request.on('error', fail);
      request.on('response', (response) => {
        const pieces = [];
        response.on('data', (piece) => pieces.push(piece));
        response.on('error', fail);
        response.on('aborted', () => fail(new Error('the answer broke off')));
        response.on('end', () => {
          if (answered) return;
          answered = true;
          socket.hasAnswered = true;
          latenciesMs.push(performance.now() - startMs);
          resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(pieces) });
        });
      });
      request.end(body);
    });
  }

  wrong(what) {
    figures.wrong.push(`connection ${this.number}: ${what}`);
  }

  async put(name) {
    const size = Math.random() < 0.05 ? 200_000 : 100 + Math.floor(Math.random() * 8000);
    const seed = randomBytes(8).toString('hex');
    // Some contents are shared by many names, so that there is something to deduplicate and to collect.
    const content = Buffer.alloc(size, Math.random() < 0.3 ? `shared ${size % 50} ` : `${seed} `);
    const before = this.files.get(name) ?? [undefined];
    this.version += 1;
    this.files.set(name, [...before, content]);
    const query = `last_modified=${encodeURIComponent(new Date(this.version * 1000).toUTCString())}`;
    const headers = { 'Content-Length': size };
    const { status, body } = await this.send('PUT', `/files${name}?${query}`, content, headers).catch(
      (error) => {
        this.late.set(name, [...(this.late.get(name) ?? []), content]);
        throw error;
      },
    );
    if (status !== 200) this.wrong(`PUT ${name} gave ${status} ${body}`);
    this.past.set(name, [...(this.past.get(name) ?? []), ...before].slice(-10));
    this.late.delete(name);
    this.files.set(name, [content]);
  }

  async remove(name) {
    const before = this.files.get(name) ?? [undefined];
    this.version += 1;
    this.files.set(name, [...before, undefined]);
    const query = `last_modified=${encodeURIComponent(new Date(this.version * 1000).toUTCString())}`;
    const { status } = await this.send('DELETE', `/files${name}?${query}`).catch((error) => {
      this.late.set(name, [...(this.late.get(name) ?? []), undefined]);
      throw error;
    });
    const mayBe = before.some((content) => content !== undefined) || this.late.has(name);
    const mustBe = before.every((content) => content !== undefined) && !this.late.has(name);
    if (status !== 200 && status !== 404) this.wrong(`DELETE ${name} gave ${status}`);
    if (status === 200 && !mayBe) this.wrong(`DELETE ${name} found a file that was removed`);
    if (status === 404 && mustBe) this.wrong(`DELETE ${name} did not find a file that was acknowledged`);
    this.files.set(name, [undefined]);
  }

  async get(name, method) {
    const settled = this.files.get(name) ?? [undefined];
    const possible = [...settled, ...(this.late.get(name) ?? [])];
    const { status, headers, body } = await this.send(method, `/files${name}`);
    const fitting = (content) => {
      if (content === undefined) return status === 404;
      if (status !== 200) return false;
      const digest = createHash('sha256').update(content).digest('hex');
      return headers['sha256-checksum'] === digest && (method === 'HEAD' || body.equals(content));
    };
    const fits = possible.filter(fitting);
    if (fits.length === 0) {
      const old = (this.past.get(name) ?? []).some(fitting) ? 'an older content' : 'what was never put';
      this.wrong(`${method} ${name} gave ${status}, ${body.length} bytes, ${old}`);
    } else this.files.set(name, fits.slice(-1));
  }

  async list() {
    const { status, body } = await this.send('GET', `/list/c${this.number}`);
    const names = new Set(status === 200 ? body.toString().split('\n').filter(Boolean) : []);
    for (const [name, possible] of this.files) {
      const listed = names.has(name.slice(`/c${this.number}/`.length));
      if (this.late.has(name)) continue;
      if (!possible.some((content) => (content !== undefined) === listed)) {
        this.wrong(`the list ${listed ? 'shows' : 'lacks'} ${name}`);
      }
    }
  }

  async step() {
    const name = `/c${this.number}/file-${Math.floor(Math.random() * 20)}`;
    const dice = Math.random();
    const operation =
      dice < 0.25 ? 'put' : dice < 0.33 ? 'remove' : dice < 0.88 ? 'get' : dice < 0.97 ? 'head' : 'list';
    figures.byOperation[operation] = (figures.byOperation[operation] ?? 0) + 1;
    if (operation === 'put') await this.put(name);
    else if (operation === 'remove') await this.remove(name);
    else if (operation === 'list') await this.list();
    else await this.get(name, operation.toUpperCase());
  }

  async run() {
    while (!stop.signal.aborted) {
      try {
        await this.step();
      } catch (error) {
        if (error instanceof BrokenByKill) figures.brokenByKills += 1;
        else figures.unexpected.push(String(error.message));
      }
      await sleep(pauseMs * (0.5 + Math.random()));
    }
    this.agent.destroy();
  }

  /** Holds a connection open: one request, and another before the server would close it as idle. */
  async idle() {
    while (!stop.signal.aborted) {
      try {
        const { status } = await this.send('GET', '/version');
        if (status !== 200) this.wrong(`/version gave ${status}`);
      } catch (error) {
        if (error instanceof BrokenByKill) figures.brokenByKills += 1;
        else figures.unexpected.push(String(error.message));
      }
      for (let waited = 0; waited < 45_000 && !stop.signal.aborted; waited += 500) await sleep(500);
    }
    this.agent.destroy();
  }
}

// --- The run ----------------------------------------------------------------------------------------------

async function killNowAndThen(pid) {
  const everyMs = Number(options['kill-every']) * 1000;
  for (let next = performance.now() + everyMs; !stop.signal.aborted; next += everyMs) {
    while (!stop.signal.aborted && performance.now() < next) await sleep(100);
    if (stop.signal.aborted) return;
    const workers = childrenOf(pid);
    const victim = workers[figures.kills % workers.length];
    if (victim === undefined) continue;
    // Stopped first, so that what it holds can be noted before it is gone.
    process.kill(victim, 'SIGSTOP');
    const ports = clientPortsOf(victim);
    for (const port of ports) killedPorts.add(port);
    killedMs = performance.now();
    process.kill(victim, 'SIGKILL');
    figures.kills += 1;
    setTimeout(() => ports.forEach((port) => killedPorts.delete(port)), 10_000).unref();
  }
}

const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / Math.max(1, numbers.length);
const mib = (bytes) => Math.round((bytes / 1024 / 1024) * 10) / 10;

function quantile(sorted, part) {
  return Math.round((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0) * 100) / 100;
}

async function recover(folder) {
  const program = join(root, 'dist', 'cli', 'filetracker-recover.js');
  const child = spawn(process.execPath, [program, folder, '-s', '-f', '--dry-run'], { stdio: 'inherit' });
  return new Promise((resolve) => child.once('exit', resolve));
}

const folder = await mkdtemp(join(tmpdir(), 'filetracker-soak-'));
const { child, port } = await startServer(folder);
const ended = new Promise((resolve) => child.once('exit', (code) => resolve(code)));
try {
  const clients = Array.from({ length: Number(options.active) }, (_, number) => new Client(port, number));
  const idlers = Array.from(
    { length: Number(options.idle) },
    (_, number) => new Client(port, 10_000 + number),
  );
  const running = clients.map((client) => client.run());
  for (const [at, idler] of idlers.entries()) {
    running.push(idler.idle());
    if (at % 50 === 49) await sleep(20);
  }
  running.push(killNowAndThen(child.pid));
  const memory = [];
  const startMs = performance.now();
  while (performance.now() - startMs < seconds * 1000) {
    await sleep(1000);
    memory.push(memoryOf(child.pid));
  }
  stop.abort();
  await Promise.all(running);
  // The first tenth of a minute is the filling of caches.
  const window = Math.min(60, Math.max(1, Math.floor(seconds / 5)));
  const skipped = Math.min(10, Math.floor(seconds / 10));
  const first = mean(memory.slice(skipped, skipped + window));
  const last = mean(memory.slice(-window));
  child.kill('SIGTERM');
  const exitCode = await ended;
  const recoverCode = await recover(folder);
  const sorted = latenciesMs.sort((one, other) => one - other);
  const result = {
    seconds,
    workers: Number(options.workers),
    active: clients.length,
    idle: idlers.length,
    ...figures,
    wrong: figures.wrong.length,
    unexpected: figures.unexpected.length,
    perSecond: Math.round(figures.requests / seconds),
    latencyMs: { p50: quantile(sorted, 0.5), p99: quantile(sorted, 0.99), most: quantile(sorted, 1) },
    memoryMiB: {
      first: mib(first),
      last: mib(last),
      ratio: Math.round((last / first) * 1000) / 1000,
      most: mib(Math.max(...memory)),
    },
    exitCode,
    recoverCode,
  };
  console.log(JSON.stringify(result, undefined, 2));
  for (const line of [...figures.wrong.slice(0, 10), ...figures.unexpected.slice(0, 10)]) console.error(line);
  const sound = result.wrong === 0 && result.unexpected === 0 && exitCode === 0 && recoverCode === 0;
  process.exitCode = sound ? 0 : 1;
} finally {
  child.kill('SIGKILL');
  await rm(folder, { recursive: true, force: true });
}
