import { HttpTransport } from '../client/http-transport.ts';
import { remoteVersion } from '../client/remote-store.ts';
import { isFiletrackerError } from '../core/errors.ts';
import type { OldServer } from '../maintenance/importing/old-server.ts';

/** The server that files are being moved from, reached as a client of ours reaches any server. */
export function connectOldServer(url: string): OldServer & { close(): void } {
  const transport = new HttpTransport(url);
  return {
    version: (name, signal) => remoteVersion(transport, name, { signal }),
    open: async (name, signal) => {
      const answer = await transport.open(name, { signal });
      if (answer.kind !== 'content') return undefined;
      const { file, encoding, transferSize, body } = answer;
      const { version, size, digest } = file;
      return { version, size, digest, encoding, transferSize, body, cancel: () => answer.cancel() };
    },
    list: async function* list(directory, upTo, signal) {
      try {
        yield* transport.listNames(directory, { upTo }, { signal });
      } catch (error) {
        // A server answers so for a directory that it does not have.
        const absent =
          isFiletrackerError(error) && (error.details.status === 400 || error.details.status === 404);
        if (!absent) throw error;
      }
    },
    close: () => transport.close(),
  };
}
