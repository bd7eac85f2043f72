import type { ListenOptions } from 'node:net';
import type { Access } from '../access/access.ts';
import type { RequestAdmission } from '../access/rate-limiter.ts';
import type { TlsMaterial } from '../access/tls-files.ts';
import type { Clock } from '../core/clock.ts';
import type { FileStore } from '../store/file-store.ts';
import type { SenderSlots } from '../store/sender-slots.ts';
import type { UploadGate } from '../store/upload-gate.ts';
import type { ServerTimeouts } from './connections/node-server.ts';
import type { VerificationControl } from './handlers/context.ts';
import type { MetricsSource, RequestObserver } from './observer.ts';

export interface HttpServerOptions {
  readonly store: FileStore;
  /** Admits uploads; by default all of them. */
  readonly uploads?: UploadGate | undefined;
  /** Admits lists; by default all of them. */
  readonly lists?: SenderSlots | undefined;
  /** Host and port, a path, or a handle that was opened elsewhere; `undefined` if connections come through `take`. */
  readonly listen: ListenOptions | undefined;
  readonly release: string;
  /** Prefix of every path, such as `/ft`; empty by default. */
  readonly basePath?: string | undefined;
  /** Base URL, without a trailing slash, of the server that files are imported from. */
  readonly fallbackUrl?: string | undefined;
  /** Redirect readers (307) to the blob's own URL, if the store has one. */
  readonly redirectDownloads?: boolean | undefined;
  readonly access?: Access;
  readonly observer?: RequestObserver;
  readonly clock?: Clock;
  readonly timeouts?: Partial<ServerTimeouts> | undefined;
  /** Minimum rate of bodies, in bytes per second; 0 for none. */
  readonly bodyBytesPerSecondMin?: number | undefined;
  readonly admission?: RequestAdmission | undefined;
  readonly metrics?: MetricsSource | undefined;
  readonly verification?: VerificationControl | undefined;
  /** Serves HTTPS if present. */
  readonly tls?: TlsMaterial | undefined;
  /** Maximum concurrent connections. */
  readonly connectionsMax?: number | undefined;
  /** Whether small, plain requests are served without node:http; `true` by default. */
  readonly fastLane?: boolean | undefined;
}
