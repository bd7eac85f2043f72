import { isIP, isIPv6 } from 'node:net';
import { FiletrackerError } from '../core/errors.ts';

function refuse(text: string, state: string): FiletrackerError {
  return new FiletrackerError('invalid-argument', `Cannot use --listen-on "${text}": ${state}`);
}

/**
 * Reads the address or host name to listen on. `[::1]`, as URLs write it, is `::1`.
 * @throws FiletrackerError `invalid-argument`.
 */
export function readListenAddress(text: string): string {
  const [, inBrackets = text] = /^\[(.*)\]$/.exec(text) ?? [];
  if (isIP(inBrackets) !== 0) {
    const isLinkLocal = isIPv6(inBrackets) && /^fe[89ab]/i.test(inBrackets);
    if (!isLinkLocal || inBrackets.includes('%')) return inBrackets;
    throw refuse(text, `this address is of one network only; name the network too, as ${inBrackets}%eth0`);
  }
  const [, host, port] = /^([^:/]+|\[[^\]]*\]):(\d+)$/.exec(text) ?? [];
  if (host !== undefined) throw refuse(text, `it names a port too; write it as -l ${host} -p ${port}`);
  if (/^[\w.-]+$/.test(text)) return text;
  throw refuse(
    text,
    'it is neither an address nor the name of a host; use 0.0.0.0 or :: for all of this machine',
  );
}

/** A host as it stands in a URL. */
export function hostInUrl(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}

const noSuchHost = 'no such host is known; give an address of this machine, such as 127.0.0.1 or 0.0.0.0';

/** By the system's code: what is wrong with the address, which is the operator's to change. */
const wrongAddress: Readonly<Record<string, string>> = {
  EACCES: 'this user may not use the port; choose one above 1023 with -p',
  EADDRNOTAVAIL: 'this machine has no such address; give one of its own, or 0.0.0.0 for all',
  EAFNOSUPPORT: 'this machine has no addresses of this kind',
  EINVAL: 'the system does not accept this address; a network that it names may not exist',
  ENOTFOUND: noSuchHost,
  EAI_FAIL: noSuchHost,
};

/** The same, of what may pass. */
const passing: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another program listens there; stop it or choose another port with -p',
  EAI_AGAIN: 'its name cannot be looked up now; give its address',
  EMFILE: 'too many files are open; raise the limit (ulimit -n)',
};

/** An error of opening a listening socket, in words for the operator; any other comes back as it is. */
export function addressError(error: unknown, host: string, port: number): unknown {
  if (!(error instanceof Error) || !('syscall' in error) || !('code' in error)) return error;
  const code = String(error.code);
  const state = wrongAddress[code] ?? passing[code] ?? `the system answered with ${code}`;
  const text = `Cannot listen on ${hostInUrl(host)}:${port}: ${state}`;
  return new FiletrackerError(code in wrongAddress ? 'invalid-argument' : 'unavailable', text, {
    cause: error,
  });
}
