import type { IncomingMessage } from 'node:http';

/** What a token may allow; `admin` is for the endpoints that change how the server works. */
export const rights = ['read', 'write', 'delete', 'list', 'admin'] as const;
export type Right = (typeof rights)[number];

/** Who sent a request, and what that allows. */
export interface Principal {
  /** For the log; undefined where nobody had to say who he is. */
  readonly name: string | undefined;
  /** Whether every right holds for every name; lists need no filter then. */
  readonly unrestricted: boolean;
  /** Why rights are missing, where who sent the request could do nothing about it. */
  readonly refusal?: string | undefined;
  /** Whether it cannot be told yet who anybody is: the server is not ready then. */
  readonly unknowable?: boolean | undefined;
  /** @param path a name, or a directory that ends in a slash. */
  may(right: Right, path: string): boolean;
  /**
   * The parts of a directory that a list of it shows: the directory itself, or the ones below it that
   * may be listed, each ending in a slash, none below another, in byte order. A single file may stand for
   * a directory that it is not; nothing is below it then.
   */
  listable(directory: string): readonly string[];
}

/** Decides who sent a request. Asked once a request, before anything of a body is read. */
export interface Access {
  /** @throws FiletrackerError `unauthorized` where the request does not prove who sent it. */
  identify(request: IncomingMessage): Principal | Promise<Principal>;
}

const anyone: Principal = {
  name: undefined,
  unrestricted: true,
  may: () => true,
  listable: (directory) => [directory],
};

/** Everybody may do everything, as with the legacy server. */
export const openAccess: Access = { identify: () => anyone };
