// Which proxy a server is reached through. Reads the environment as curl and Go do.
import { BlockList, isIP, isIPv6 } from 'node:net';
import { cannot } from '../../core/errors.ts';
import { shownAddress } from '../../core/shown-text.ts';
import { parseServerAddress, type ServerAddress } from './server-address.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** The URL of a proxy; `false` for none; `undefined` for the one that the environment names. */
export type ProxySetting = string | false | undefined;

/** The first variable that is set counts, even if it is empty. */
const variables = {
  http: ['http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'],
  https: ['https_proxy', 'HTTPS_PROXY', 'all_proxy', 'ALL_PROXY'],
  none: ['no_proxy', 'NO_PROXY'],
} as const;

function firstSet(names: readonly string[], environment: Environment): string | undefined {
  // A CGI program receives the header "Proxy" of its request as HTTP_PROXY.
  const isCgi = environment['REQUEST_METHOD'] !== undefined;
  const trusted = names.filter((name) => !(isCgi && name === 'HTTP_PROXY'));
  return trusted.map((name) => environment[name]).find((value) => value !== undefined);
}

/**
 * The proxy for a server; `undefined` if it is reached straight, as servers on this machine always are unless
 * `setting` names a proxy.
 * @throws FiletrackerError `invalid-argument` for an unusable URL of a proxy.
 */
export function proxyFor(
  address: Pick<ServerAddress, 'secure' | 'host' | 'port'>,
  setting?: ProxySetting,
  environment: Environment = process.env,
): ServerAddress | undefined {
  if (setting === false) return undefined;
  if (setting !== undefined) return parseProxy(setting);
  const text = firstSet(address.secure ? variables.https : variables.http, environment);
  if (text === undefined || text === '' || isLoopback(address.host)) return undefined;
  return isExempt(address, firstSet(variables.none, environment) ?? '') ? undefined : parseProxy(text);
}

/** The header that shows the user info of a proxy's URL to it. */
export function proxyAuthorization({ authorization }: ServerAddress): Readonly<Record<string, string>> {
  return authorization === undefined ? {} : { 'Proxy-Authorization': authorization };
}

function parseProxy(text: string): ServerAddress {
  const url = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`;
  if (/^https?:\/\//i.test(url)) return parseServerAddress(url, 'proxy');
  const state = 'only http and https proxies are supported';
  throw cannot('invalid-argument', `use the proxy "${shownAddress(text)}"`, state);
}

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

function isLoopback(host: string): boolean {
  if (/^(?:.*\.)?localhost\.?$/i.test(host)) return true;
  return isIP(host) !== 0 && loopback.check(withoutZone(host), familyOf(host));
}

function familyOf(host: string): 'ipv4' | 'ipv6' {
  return isIPv6(host) ? 'ipv6' : 'ipv4';
}

function withoutZone(host: string): string {
  return host.replace(/%.*$/, '');
}

/**
 * Whether a list such as `example.com,.internal,10.0.0.0/8,[::1]:9999` or `*` names a server. A domain includes its
 * subdomains; an entry with a port matches only that port.
 */
function isExempt({ host, port }: Pick<ServerAddress, 'host' | 'port'>, list: string): boolean {
  const name = withoutZone(host).toLowerCase().replace(/\.$/, '');
  return list
    .toLowerCase()
    .split(/[\s,]+/)
    .some((entry) => entry === '*' || (entry !== '' && matches(entry, name, port)));
}

function matches(entry: string, host: string, port: number): boolean {
  const [address = '', bits] = entry.replace(/[[\]]/g, '').split('/');
  if (bits !== undefined) return isInSubnet(host, address, bits);
  const [, bracketed, named, wantedPort] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d{1,5}))?$/.exec(entry) ?? [];
  if (wantedPort !== undefined && Number(wantedPort) !== port) return false;
  const wanted = bracketed ?? named ?? entry;
  if (isIP(host) !== 0) return isIP(wanted) === isIP(host) && isInSubnet(host, wanted, undefined);
  const domain = wanted.replace(/^\*?\./, '').replace(/\.$/, '');
  return host === domain || host.endsWith(`.${domain}`);
}

function isInSubnet(host: string, address: string, bits: string | undefined): boolean {
  if (isIP(host) === 0 || isIP(address) !== isIP(host)) return false;
  const widest = isIPv6(host) ? 128 : 32;
  const prefix = bits === undefined ? widest : /^\d{1,3}$/.test(bits) ? Number(bits) : Infinity;
  if (prefix > widest) return false;
  const subnet = new BlockList();
  subnet.addSubnet(address, prefix, familyOf(address));
  return subnet.check(host, familyOf(host));
}
