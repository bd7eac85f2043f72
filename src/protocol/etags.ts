import { isDigest, type Digest } from '../core/digest.ts';
import { encodings, type Encoding } from '../core/blob.ts';

/** A strong entity tag: the digest of the content, and the encoding if the body is encoded. */
export function etagOf(digest: Digest, encoding: Encoding): string {
  return encoding === 'identity' ? `"${digest}"` : `"${digest}-${encoding}"`;
}

export interface EntityTag {
  readonly weak: boolean;
  /** The text between the quotes. */
  readonly value: string;
}

/** `*`, or the tags of the header; `undefined` if it is malformed. */
export type EntityTags = '*' | readonly EntityTag[];

const leadingTag = /^[\s,]*(W\/)?"([\u0021\u0023-\u007e\u0080-\u00ff]*)"\s*(?=,|$)/;

/** Reads If-Match and If-None-Match (RFC 9110, 8.8.3 and 13.1). */
export function parseEntityTags(header: string): EntityTags | undefined {
  const text = header.trim();
  if (text === '*') return '*';
  const tags: EntityTag[] = [];
  for (let rest = text; rest !== '';) {
    const tag = leadingTag.exec(rest);
    if (tag === null) return /^[\s,]*$/.test(rest) && tags.length > 0 ? tags : undefined;
    tags.push({ weak: tag[1] !== undefined, value: tag[2] ?? '' });
    rest = rest.slice(tag[0].length);
  }
  return tags.length > 0 ? tags : undefined;
}

/** The digest in a tag of this protocol, for any encoding. */
export function digestOfTag(tag: EntityTag): Digest | undefined {
  const digest = tag.value.slice(0, 64);
  const encoding = tag.value.slice(64);
  return isDigest(digest) && (encoding === '' || encoding === '-gzip') ? digest : undefined;
}

/** Reads an ETag of a server, for the client: its digest, if it is a tag of this protocol. */
export function digestOfEtag(header: string | undefined): Digest | undefined {
  const tags = header === undefined ? undefined : parseEntityTags(header);
  const [tag] = tags === undefined || tags === '*' ? [] : tags;
  return tag === undefined ? undefined : digestOfTag(tag);
}

/** The encoding of a tag of this protocol; `undefined` for other tags. */
export function encodingOfEtag(header: string | undefined): Encoding | undefined {
  const digest = digestOfEtag(header);
  return digest && encodings.find((encoding) => header === etagOf(digest, encoding));
}

/**
 * The encoding under which If-None-Match names the content (weak comparison); `undefined` if it does not, so that
 * there is no 304. A client that has the content in one encoding has it, so any tag of it matches; the 304 has the
 * tag that was named, so that a cache finds its stored response. `preferred` is the encoding that would be sent.
 */
export function namedEncoding(header: string, digest: Digest, preferred: Encoding): Encoding | undefined {
  if (header === etagOf(digest, preferred)) return preferred;
  const tags = parseEntityTags(header);
  if (tags === undefined) return undefined;
  if (tags === '*') return preferred;
  const named = tags.filter((tag) => digestOfTag(tag) === digest);
  const values = named.map((tag) => `"${tag.value}"`);
  return [preferred, ...encodings].find((encoding) => values.includes(etagOf(digest, encoding)));
}

/** Whether If-Match of a read holds (strong comparison). */
export function matchHolds(header: string, digest: Digest): boolean {
  const tags = parseEntityTags(header);
  if (tags === undefined) return false;
  return tags === '*' || tags.some((tag) => !tag.weak && digestOfTag(tag) === digest);
}
