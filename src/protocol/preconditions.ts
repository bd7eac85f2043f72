import type { IncomingHttpHeaders } from 'node:http';
import { cannot } from '../core/errors.ts';
import type { Precondition } from '../core/file-version.ts';
import { readDate } from './dates.ts';
import { digestOfTag, parseEntityTags } from './etags.ts';

function refuseHeader(header: string, form: string): never {
  throw cannot('invalid-argument', `read the header ${header}`, `it must be ${form}`);
}

/**
 * The precondition of a PUT or DELETE (RFC 9110, 13.2.2). An unreadable one is an error, even a date: ignoring it would
 * make a change that the client wanted to prevent.
 *
 * If-Unmodified-Since is ignored beside a tag: If-Match is stricter, and If-None-Match: * allows no file at all.
 * @throws FiletrackerError `invalid-argument`.
 */
export function parsePrecondition(headers: IncomingHttpHeaders): Precondition | undefined {
  const match = headers['if-match'];
  const noneMatch = headers['if-none-match'];
  const unmodifiedSince = headers['if-unmodified-since'];
  if (match !== undefined) {
    const tags = parseEntityTags(match);
    if (tags === undefined || noneMatch !== undefined) {
      refuseHeader('If-Match', 'entity tags in quotes or "*", without If-None-Match');
    }
    if (tags === '*') return { kind: 'match', digests: undefined };
    // RFC 9110, 13.1.1 requires the strong comparison, in which a weak tag never matches.
    const digests = tags.filter((tag) => !tag.weak).map(digestOfTag);
    return { kind: 'match', digests: digests.filter((digest) => digest !== undefined) };
  }
  if (noneMatch !== undefined) {
    if (noneMatch.trim() !== '*') refuseHeader('If-None-Match', '"*" (store only if the name is free)');
    return { kind: 'absent' };
  }
  if (unmodifiedSince === undefined) return undefined;
  const version = readDate(unmodifiedSince);
  if (version === undefined) refuseHeader('If-Unmodified-Since', 'a date');
  return { kind: 'unmodified-since', version };
}
