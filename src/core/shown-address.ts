const leadingScheme = /^[a-z][a-z0-9+.-]*:\/\//i;

/**
 * An address as messages show it: without what stands before its last "@", which may hold a user name, a password or a
 * token, and without the values of its query, which may hold keys. The text need not be a URL.
 */
export function shownAddress(text: string): string {
  const [scheme = ''] = leadingScheme.exec(text) ?? [];
  const rest = text.slice(scheme.length);
  const at = rest.lastIndexOf('@');
  const known = at === -1 ? rest : `…@${rest.slice(at + 1)}`;
  const query = known.indexOf('?');
  return `${scheme}${query === -1 ? known : `${known.slice(0, query)}?…`}`;
}

/** Addresses of servers in a text. A path that was made of an address has one slash. */
const addressWithSecret = /\b((?:https?|postgres(?:ql)?|s3):\/{1,2})[^\s"'<>]*@/gi;

/** A text without the user names, passwords and tokens of the addresses in it. */
export function withoutSecrets(text: string): string {
  return text.replace(addressWithSecret, '$1…@');
}
