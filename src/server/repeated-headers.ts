import { FiletrackerError } from '../core/errors.ts';

const hostLength = 'host'.length;
const authorizationLength = 'authorization'.length;

/**
 * Whether `Host` or `Authorization` comes twice: Node keeps the first, others on the way may have looked at the last
 * (RFC 9112, 3.2). Names are counted by their lengths, so that next to no request has them compared.
 */
export function hasRepeatedHeader(rawHeaders: readonly string[]): boolean {
  let hosts = 0;
  let authorizations = 0;
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const { length } = rawHeaders[index] ?? '';
    if (length === hostLength) hosts += 1;
    else if (length === authorizationLength) authorizations += 1;
  }
  if (hosts < 2 && authorizations < 2) return false;
  const names = rawHeaders.filter((_, index) => index % 2 === 0).map((name) => name.toLowerCase());
  return ['host', 'authorization'].some((name) => names.indexOf(name) !== names.lastIndexOf(name));
}

export function repeatedHeader(): FiletrackerError {
  return new FiletrackerError(
    'invalid-argument',
    'Cannot read the request: Host and Authorization may come only once',
  );
}
