import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Clock } from '../core/clock.ts';
import { cannot, type FiletrackerError } from '../core/errors.ts';
import { parseAuthorization } from '../protocol/authorization.ts';
import type { Access, Principal, RequestAuthor, Right } from './access.ts';
import type { TokenBook, TokenPrincipal } from './token-book.ts';

/** What clients without a token may do. */
export type AnonymousAccess = 'all' | 'read' | 'none';

const anonymousRights: Readonly<Record<AnonymousAccess, readonly Right[]>> = {
  all: ['read', 'write', 'delete', 'list', 'admin'],
  read: ['read', 'list'],
  none: [],
};

const lostState = 'the tokens of this store are lost; its operator must restore them or add new ones';

function anonymousPrincipal(access: AnonymousAccess, refusal?: string): Principal {
  const rights = anonymousRights[access];
  return {
    name: undefined,
    refusal,
    unrestricted: access === 'all',
    may: (right) => rights.includes(right),
    listable: (directory) => (rights.includes('list') ? [directory] : []),
  };
}

function anonymousPrincipals(refusal?: string): Readonly<Record<AnonymousAccess, Principal>> {
  return {
    all: anonymousPrincipal('all', refusal),
    read: anonymousPrincipal('read', refusal),
    none: anonymousPrincipal('none', refusal),
  };
}

function failUnread(): never {
  const details = { retryAfterSeconds: 2 };
  throw cannot('unavailable', 'identify the client', 'the tokens cannot be read yet; retry', { details });
}

/** Every client, while the tokens are unread; requests that need no right are served. */
const unreadPrincipal: Principal = {
  name: undefined,
  unrestricted: false,
  unknowable: true,
  may: failUnread,
  listable: failUnread,
};

const anonymous = anonymousPrincipals();
const anonymousWhereLost = anonymousPrincipals(lostState);

export interface TokenAccessOptions {
  /** The current tokens; called with every request, because they change while the server runs. */
  readonly tokens: () => TokenBook;
  /** The current access without a token: a store is open to all until it has its first token. */
  readonly anonymous: () => AnonymousAccess;
  readonly clock: Clock;
}

/**
 * Identifies a client by the token in its `Authorization` header or, without one, by the name in the certificate of its
 * connection. A wrong token is an error even if anonymous access would do.
 */
export class TokenAccess implements Access {
  readonly #options: TokenAccessOptions;

  constructor(options: TokenAccessOptions) {
    this.#options = options;
  }

  identify(request: RequestAuthor): Principal {
    const { authorization } = request.headers;
    const book = this.#options.tokens();
    if (book.unread) return unreadPrincipal;
    if (authorization === undefined) return this.#byCertificate(request, book);
    const credentials = parseAuthorization(authorization);
    if (credentials === undefined) throw unauthorized('the Authorization header is neither Basic nor Bearer');
    const holder = book.holderOf(credentials.secret);
    const named = credentials.name === undefined || credentials.name === holder?.name;
    if (holder === undefined || !named) throw unauthorized(book.lost ? lostState : 'the token is unknown');
    return this.#current(holder);
  }

  #byCertificate(request: RequestAuthor, book: TokenBook): Principal {
    const name = certificateName(request);
    if (name === undefined) return (book.lost ? anonymousWhereLost : anonymous)[this.#options.anonymous()];
    const holder = book.named(name);
    if (holder === undefined) {
      throw unauthorized(book.lost ? lostState : 'no token has the name of the certificate');
    }
    return this.#current(holder);
  }

  #current(holder: TokenPrincipal): Principal {
    if (holder.expiresAtMs > this.#options.clock.nowMs()) return holder;
    throw unauthorized('the token has expired');
  }
}

function unauthorized(state: string): FiletrackerError {
  return cannot('unauthorized', 'identify the client', state);
}

/** The common name of the client's verified certificate; `undefined` if it has none. */
function certificateName(request: RequestAuthor): string | undefined {
  const socket: Socket & Partial<Pick<TLSSocket, 'authorized' | 'getPeerCertificate'>> = request.socket;
  if (socket.authorized !== true) return undefined;
  const name: unknown = socket.getPeerCertificate?.().subject?.CN;
  return typeof name === 'string' ? name : undefined;
}
