/** Groups of an IPv6 address that name a network; the rest is its holder's to choose. */
const networkGroups = 4;
const addressGroups = 8;

/**
 * Who is at an address, in brackets. Of IPv6 it is the network (/64): whoever has one has 2^64 addresses, and would
 * have as many times what one may do.
 */
export function senderOf(address: string): string {
  // IPv4, also as it comes from a socket for both kinds (::ffff:192.0.2.1).
  if (!address.includes(':') || address.includes('.')) return `[${address}]`;
  const [plain = ''] = address.split('%');
  const [head = '', tail] = plain.split('::');
  const first = head === '' ? [] : head.split(':');
  const last = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = Array.from({ length: Math.max(0, addressGroups - first.length - last.length) }, () => '0');
  return `[${[...first, ...zeros, ...last].slice(0, networkGroups).join(':')}::/64]`;
}
