import type { IncomingHttpHeaders } from 'node:http';
import { FiletrackerError } from '../core/errors.ts';
import type { Precondition } from '../core/file-version.ts';
import { readDate } from './dates.ts';
import { digestOfTag, parseEntityTags } from './etags.ts';

function refuseHeader(header: string, form: string): never {
  throw new FiletrackerError('invalid-argument', `Cannot read the header ${header}: it must be ${form}`);
}

/**
 * The precondition of a PUT or DELETE (RFC 9110, 13.2.2). What can't be read is refused rather than ignored, a date too:
 * the change must not happen where the client asked that it should not.
 *
 * Beside a tag the date does not count: If-Match says more, and where If-None-Match asks for no file at all there is
 * none that could be newer.
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
    // A weak tag never matches in the strong comparison that RFC 9110 (13.1.1) asks for.
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
