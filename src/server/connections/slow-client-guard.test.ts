import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { describe, expect, it } from 'vitest';
import { Connection } from './connection.ts';
import { SlowClientGuard, type SlowClientFault } from './slow-client-guard.ts';

const timeouts = { headersMs: 2000, stallMs: 4000, idleMs: 6000 };

/** A connection whose socket says what the test wants, looked at once a second. */
class Watched {
  readonly socket = { bytesRead: 0, bytesWritten: 0, writableLength: 0 };
  readonly request = { complete: false, readableLength: 0 };
  readonly connection = new Connection(this.socket as Socket);
  readonly guard: SlowClientGuard;
  #nowMs = 0;

  constructor(bytesPerSecond = 1000) {
    this.guard = new SlowClientGuard(bytesPerSecond, timeouts);
    this.guard.pass(0);
  }

  arrive(): IncomingMessage {
    const request = this.request as IncomingMessage;
    this.connection.receives(request);
    return request;
  }

  read(): void {
    this.connection.active = 1;
    this.connection.beginReading(this.arrive(), () => undefined);
  }

  /** The second at which a fault is found, and which; `step` is what happens in each second before. */
  faultWithin(seconds: number, step: () => void): readonly [number, SlowClientFault] | undefined {
    for (let second = 1; second <= seconds; second += 1) {
      step();
      this.#nowMs += 1000;
      const fault = this.guard.faultOf(this.connection, this.guard.pass(this.#nowMs));
      if (fault !== undefined) return [second, fault];
    }
    return undefined;
  }
}

describe('SlowClientGuard', () => {
  it('finds a body that trickles, when it was waited for as long as for one that stalls', () => {
    const watched = new Watched();
    watched.read();
    const fault = watched.faultWithin(60, () => (watched.socket.bytesRead += 999));
    expect(fault).toEqual([5, 'slow-sender']);
  });

  it('finds one that begins well', () => {
    const watched = new Watched();
    watched.read();
    watched.socket.bytesRead = 1_000_000;
    const fault = watched.faultWithin(60, () => (watched.socket.bytesRead += 1));
    expect(fault).toEqual([5, 'slow-sender']);
  });

  it('lets one be that makes the rate, in bursts too', () => {
    const watched = new Watched();
    watched.read();
    let second = 0;
    const step = (): void => {
      if (second++ % 4 === 0) watched.socket.bytesRead += 4000;
    };
    expect(watched.faultWithin(60, step)).toBeUndefined();
  });

  it('blames no client for a slow store', () => {
    const watched = new Watched();
    watched.read();
    watched.request.readableLength = 65_536;
    expect(watched.faultWithin(60, () => undefined)).toBeUndefined();
  });

  it('blames no client for a process that was stopped', () => {
    const watched = new Watched();
    watched.read();
    expect(watched.faultWithin(1, () => undefined)).toBeUndefined();
    expect(watched.guard.pass(3_600_000)).toBe(2000);
  });

  it('finds the rest of a refused body that trickles, and no more when it has come', () => {
    const watched = new Watched();
    watched.arrive();
    expect(watched.faultWithin(60, () => (watched.socket.bytesRead += 1))).toEqual([5, 'slow-sender']);
    watched.request.complete = true;
    expect(watched.faultWithin(8, () => undefined)).toBeUndefined();
  });

  it('finds a reader who does not take in its time what lies ready, and lets others be', () => {
    const slow = new Watched();
    Object.assign(slow.socket, { bytesWritten: 10_000, writableLength: 10_000 });
    expect(slow.faultWithin(60, () => undefined)).toEqual([16, 'slow-reader']);
    const steady = new Watched();
    Object.assign(steady.socket, { bytesWritten: 10_000, writableLength: 10_000 });
    let second = 0;
    const step = (): void => {
      if (++second % 10 === 0) steady.socket.bytesWritten += 10_000;
    };
    expect(steady.faultWithin(60, step)).toBeUndefined();
  });

  it('finds a connection without requests, and starts again with each request', () => {
    const watched = new Watched();
    watched.request.complete = true;
    watched.arrive();
    expect(watched.faultWithin(8, () => undefined)).toBeUndefined();
    watched.arrive();
    expect(watched.faultWithin(20, () => undefined)).toEqual([10, 'no-request']);
  });

  it('does so where no rate is asked for, and then lets bodies and answers be', () => {
    const watched = new Watched(0);
    watched.read();
    Object.assign(watched.socket, { bytesWritten: 10_000, writableLength: 10_000 });
    expect(watched.faultWithin(60, () => undefined)).toBeUndefined();
    watched.connection.endReading();
    watched.connection.active = 0;
    watched.socket.writableLength = 0;
    watched.request.complete = true;
    expect(watched.faultWithin(20, () => undefined)).toEqual([9, 'no-request']);
  });
});
