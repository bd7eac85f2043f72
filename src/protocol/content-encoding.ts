import type { Encoding } from '../core/blob.ts';
import { cannot } from '../core/errors.ts';
import { parseWeightedList, type WeightedToken } from './quality.ts';

/**
 * Reads Content-Encoding of an upload, or of a download on the client's side. @throws FiletrackerError
 * `unsupported-encoding` for anything but gzip and identity.
 */
export function parseContentEncoding(header: string | undefined): Encoding {
  if (header === undefined) return 'identity';
  switch (header.trim().toLowerCase()) {
    case '':
    case 'identity':
      return 'identity';
    case 'gzip':
    case 'x-gzip': // The same coding (RFC 9110, 8.4.1.3).
      return 'gzip';
    default:
      throw cannot(
        'unsupported-encoding',
        `read the Content-Encoding ${JSON.stringify(header.slice(0, 60))}`,
        'it must be gzip or identity',
      );
  }
}

/** The encodings that a client accepts, of those that a store has. */
export interface AcceptedEncodings {
  /** Send a blob that is stored as gzip without decoding it. */
  readonly gzip: boolean;
  /** Whether a decoded response is allowed; a Range requires one. */
  readonly identity: boolean;
}

const identityOnly: AcceptedEncodings = { gzip: false, identity: true };
const both: AcceptedEncodings = { gzip: true, identity: true };

function qualityOf(elements: readonly WeightedToken[], names: readonly string[]): number | undefined {
  return (elements.find(({ token }) => names.includes(token)) ?? elements.find(({ token }) => token === '*'))
    ?.quality;
}

function negotiate(header: string): AcceptedEncodings {
  const elements = parseWeightedList(header);
  const gzip = qualityOf(elements, ['gzip', 'x-gzip']) ?? 0;
  // If identity is not listed, it is allowed, but everything listed is preferred to it (RFC 9110, 12.5.3).
  const identity = qualityOf(elements, ['identity']);
  return { gzip: gzip > 0 && gzip >= (identity ?? 0), identity: identity !== 0 };
}

let lastHeader = '';
let lastAccepted = identityOnly;

/**
 * Reads Accept-Encoding. Without the header the response is identity, so that a plain client gets the content. There
 * is no 406: a client that accepts neither encoding, or forbids identity for a blob that is stored uncompressed, gets
 * the stored form, which Content-Encoding names (RFC 9110, 12.5.3, leaves this to the server). At equal weight gzip
 * is sent, because it saves bandwidth and processor time.
 */
export function acceptedEncodings(header: string | undefined): AcceptedEncodings {
  if (header === undefined) return identityOnly;
  if (header === 'gzip') return both;
  // Nearly all requests of a connection repeat one header; parsing it again would cost more than the look-up.
  if (header !== lastHeader) {
    lastAccepted = negotiate(header);
    lastHeader = header;
  }
  return lastAccepted;
}
