// From a request to what it may do and how often:
// its token or certificate (token-access.ts) names a Principal with rights; the principal's name, or the address of a
// request without one, is the sender; the sender's rate (rate-limiter.ts) decides whether the request is admitted now.
import type { IncomingMessage } from 'node:http';

/** What a token may allow; `admin` is for the endpoints that change how the server works. */
export const rights = ['read', 'write', 'delete', 'list', 'admin'] as const;
export type Right = (typeof rights)[number];

/** The author of a request, and the author's rights. */
export interface Principal {
  /** For the log; `undefined` if the request is anonymous. */
  readonly name: string | undefined;
  /** Whether every right holds for every name, so that lists need no filter. */
  readonly unrestricted: boolean;
  /** Why rights are missing, if the client cannot change it. */
  readonly refusal?: string | undefined;
  /** Whether the server cannot identify any client yet; it is not ready then. */
  readonly unknowable?: boolean | undefined;
  /** @param path a name, or a directory that ends in a slash. */
  may(right: Right, path: string): boolean;
  /**
   * The parts of a directory that its list shows: the directory itself, or the directories below it that may be
   * listed, each ending in a slash, none below another, in byte order. One of them may be a file; nothing is below it.
   */
  listable(directory: string): readonly string[];
}

/** The parts of a request that show its author. */
export type RequestAuthor = Pick<IncomingMessage, 'headers' | 'socket'>;

/** Identifies the author of a request. Called once per request, before any of its body is read. */
export interface Access {
  /** @throws FiletrackerError `unauthorized` if the request does not prove its author. */
  identify(request: RequestAuthor): Principal | Promise<Principal>;
}

const anyone: Principal = {
  name: undefined,
  unrestricted: true,
  may: () => true,
  listable: (directory) => [directory],
};

/** Every client may do everything, as with the legacy server. */
export const openAccess: Access = { identify: () => anyone };
