import { HttpTransport } from '../client/http/transport.ts';
import { remoteVersion } from '../client/http/remote-store.ts';
import { isFiletrackerError } from '../core/errors.ts';
import type { OldServer } from '../store/import/old-server.ts';

const toldNamesMax = 1000;

/**
 * The server that files are being moved from, reached as a client of ours reaches any server. `onUnusable` is told, once
 * each, of what it lists that can't be a name here, as the old server took any; lists leave it out.
 */
export function connectOldServer(
  url: string,
  onUnusable: (name: string) => void = () => undefined,
): OldServer & { close(): void } {
  const transport = new HttpTransport(url);
  const told = new Set<string>();
  const tell = (name: string): void => {
    if (told.size >= toldNamesMax || told.has(name)) return;
    told.add(name);
    onUnusable(name);
  };
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
        const options = { signal, onUnusable: (line: string) => tell(directory + line) };
        yield* transport.listNames(directory, { upTo }, options);
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
