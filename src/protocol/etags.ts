import { isDigest, type Digest } from '../core/digest.ts';
import { encodings, type Encoding } from '../core/encoding.ts';
import { FiletrackerError } from '../core/errors.ts';

/** A strong entity tag: the digest of the content, and the encoding where the body is encoded. */
export function etagOf(digest: Digest, encoding: Encoding): string {
  return encoding === 'identity' ? `"${digest}"` : `"${digest}-${encoding}"`;
}

export interface EntityTag {
  readonly weak: boolean;
  /** What stands between the quotes. */
  readonly value: string;
}

/** `*`, or the tags of the header; undefined where it can't be read. */
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

/** The digest that a tag of ours names, whatever the encoding it was given for. */
function digestOfTag(tag: EntityTag): Digest | undefined {
  const digest = tag.value.slice(0, 64);
  const encoding = tag.value.slice(64);
  return isDigest(digest) && (encoding === '' || encoding === '-gzip') ? digest : undefined;
}

/** Reads an ETag that a server sent, for the client: the digest it names, if it is one of ours. */
export function digestOfEtag(header: string | undefined): Digest | undefined {
  const tags = header === undefined ? undefined : parseEntityTags(header);
  const [tag] = tags === undefined || tags === '*' ? [] : tags;
  return tag === undefined ? undefined : digestOfTag(tag);
}

/** The encoding that an ETag of ours was given for; undefined for another's tag. */
export function encodingOfEtag(header: string | undefined): Encoding | undefined {
  const digest = digestOfEtag(header);
  return digest && encodings.find((encoding) => header === etagOf(digest, encoding));
}

/**
 * Under which encoding If-None-Match names the content (weak comparison), or undefined where it does not: the
 * answer is then no 304. Who holds the content in one encoding holds it, so any of our tags will do; the 304
 * carries the tag that was named, so that a cache finds the answer it has kept. `preferred` is the encoding that
 * would be sent.
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

function refuseTag(header: string, form: string): never {
  throw new FiletrackerError('invalid-argument', `Cannot read the header ${header}: it must be ${form}`);
}

/** What a PUT or DELETE requires of the entry that is stored: none at all, or one of these digests (any, where undefined). */
export type EntityCondition =
  { readonly kind: 'absent' } | { readonly kind: 'match'; readonly digests: readonly Digest[] | undefined };

/**
 * The precondition of a PUT or DELETE. What can't be read is refused rather than ignored: the change must
 * not happen where the client asked that it should not.
 * @throws FiletrackerError `invalid-argument`.
 */
export function parsePrecondition(
  ifMatch: string | undefined,
  ifNoneMatch: string | undefined,
): EntityCondition | undefined {
  if (ifMatch !== undefined) {
    const tags = parseEntityTags(ifMatch);
    if (tags === undefined || ifNoneMatch !== undefined) {
      refuseTag('If-Match', 'entity tags in quotes or "*", without If-None-Match');
    }
    if (tags === '*') return { kind: 'match', digests: undefined };
    // A weak tag never matches in the strong comparison that RFC 9110 (13.1.1) asks for.
    const digests = tags.filter((tag) => !tag.weak).map(digestOfTag);
    return { kind: 'match', digests: digests.filter((digest) => digest !== undefined) };
  }
  if (ifNoneMatch === undefined) return undefined;
  if (ifNoneMatch.trim() !== '*') refuseTag('If-None-Match', '"*" (store only if the name is free)');
  return { kind: 'absent' };
}
