import type { Clock } from '../../core/clock.ts';
import type { MetricsSource } from '../observer.ts';
import type { SeekQueue } from '../seek-queue.ts';
import type { FileStore } from '../../store/file-store.ts';
import type { SenderSlots } from '../../store/sender-slots.ts';
import type { UploadGate } from '../../store/upload-gate.ts';

/** Controls the verification of the store. */
export interface VerificationControl {
  /** Starts a run; `false` if one is in progress. */
  start(): Promise<boolean>;
  /** The state of the last run, for JSON; `undefined` if there was none. */
  status(): Promise<object | undefined>;
}

/** What the handlers of one server share. */
export interface ServerContext {
  readonly store: FileStore;
  /** Admits the uploads of this process. */
  readonly uploads: UploadGate;
  /** Lists in progress in this process. */
  readonly lists: SenderSlots;
  readonly clock: Clock;
  /** Software and release, as `/version` and `/status` report them. */
  readonly serverName: string;
  readonly release: string;
  /** Base URL of the server that files are being moved from; undefined outside of a migration. */
  readonly fallbackUrl: string | undefined;
  /** Whether readers are redirected to the object store, if it has the bytes. */
  readonly redirectDownloads: boolean;
  /** Turns of requests for ranges far into compressed files. */
  readonly seeks: SeekQueue;
  readonly metrics: MetricsSource | undefined;
  readonly verification: VerificationControl | undefined;
  readonly startedAtMs: number;
  /** Whether the server is shutting down: it then accepts no new work. */
  isDraining(): boolean;
}
