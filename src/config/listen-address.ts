import { isIP, isIPv6 } from 'node:net';
import { cannot } from '../core/errors.ts';
import { refuseFlag } from './setting.ts';

/**
 * Reads the address or host name to listen on. `[::1]`, the form of URLs, is `::1`.
 * @throws FiletrackerError `invalid-argument`, which names the flag.
 */
export function readListenAddress(text: string, flag: string): string {
  const [, inBrackets = text] = /^\[(.*)\]$/.exec(text) ?? [];
  if (isIP(inBrackets) !== 0) {
    const isLinkLocal = isIPv6(inBrackets) && /^fe[89ab]/i.test(inBrackets);
    if (!isLinkLocal || inBrackets.includes('%')) return inBrackets;
    const state = `a link-local address needs its network interface, as in ${inBrackets}%eth0`;
    return refuseFlag(flag, text, state);
  }
  const [, host, port] = /^([^:/]+|\[[^\]]*\]):(\d+)$/.exec(text) ?? [];
  if (host !== undefined) refuseFlag(flag, text, `it names a port too; write it as -l ${host} -p ${port}`);
  if (/^[\w.-]+$/.test(text)) return text;
  const state = 'it is neither an address nor the name of a host; use 0.0.0.0 or :: for all of this machine';
  return refuseFlag(flag, text, state);
}

/** A host as URLs write it. */
export function hostInUrl(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}

const noSuchHost = 'this host is not known; pass an address of this machine, such as 127.0.0.1 or 0.0.0.0';

/** Errors of the address itself, by errno: the operator must change it. */
const wrongAddress: Readonly<Record<string, string>> = {
  EACCES: 'this user may not use the port; choose one above 1023 with -p',
  EADDRNOTAVAIL: 'this machine has no such address; pass one of its own, or 0.0.0.0 for all',
  EAFNOSUPPORT: 'this machine has no addresses of this kind',
  EINVAL: 'the system does not accept this address; a network that it names may not exist',
  ENOTFOUND: noSuchHost,
  EAI_FAIL: noSuchHost,
};

/** Errors that may pass. */
const passing: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another program listens there; stop it or choose another port with -p',
  EAI_AGAIN: 'its name cannot be looked up now; pass its address',
  EMFILE: 'too many files are open; raise the limit (ulimit -n)',
};

/** Explains an error of opening a listening socket; returns any other error as it is. */
export function addressError(error: unknown, host: string, port: number): unknown {
  if (!(error instanceof Error) || !('syscall' in error) || !('code' in error)) return error;
  const code = String(error.code);
  const state = wrongAddress[code] ?? passing[code] ?? `the system reports ${code}`;
  const errorCode = code in wrongAddress ? 'invalid-argument' : 'unavailable';
  return cannot(errorCode, `listen on ${hostInUrl(host)}:${port}`, state, { cause: error });
}
