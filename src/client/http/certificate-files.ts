import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { FiletrackerError, messageOf } from '../../core/errors.ts';
import { translatingErrors } from '../local-errors.ts';

const pemCertificate = /-----BEGIN (X509 )?CERTIFICATE-----[^-]+-----END \1CERTIFICATE-----/g;

export function certificatesIn(pem: string): string[] {
  return pem.match(pemCertificate) ?? [];
}

/**
 * Reads a file of authorities that somebody named.
 * @throws FiletrackerError `invalid-argument` if it holds no certificate; `not-found`, `io`.
 */
export function readAuthorities(path: string, givenBy: string): string {
  const text = readPem(givenBy, path);
  const refuse = (state: string): never => {
    throw new FiletrackerError('invalid-argument', `Cannot use ${givenBy} "${path}": ${state}`);
  };
  const found = certificatesIn(text);
  if (found.length === 0) refuse('it holds no certificate as PEM');
  for (const certificate of found) {
    const fault = faultOf(certificate);
    if (fault !== undefined) refuse(`a certificate in it cannot be read (${fault})`);
  }
  return text;
}

function faultOf(certificate: string): string | undefined {
  try {
    return new X509Certificate(certificate).raw.length > 0 ? undefined : 'it is empty';
  } catch (error) {
    return messageOf(error);
  }
}

function readPem(givenBy: string, path: string): string {
  return translatingErrors(`read ${givenBy} "${path}"`, () => readFileSync(path, 'utf8'));
}

/** Certificates for https, as PEM text. */
export interface TlsOptions {
  /** Authorities to trust besides those of the system. */
  readonly ca?: string | undefined;
  /** What this client shows to the server, and its key. */
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}

/** Files with the certificates of TlsOptions. */
export interface TlsFiles {
  readonly ca?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}

/**
 * Reads the files that are named.
 * @throws FiletrackerError `invalid-argument` for a file that holds no certificate or key; `io`.
 */
export function readTlsFiles({ ca, cert, key }: TlsFiles): TlsOptions {
  return {
    ca: isGiven(ca) ? readAuthorities(ca, 'the authority') : undefined,
    cert: isGiven(cert) ? readAuthorities(cert, 'the certificate') : undefined,
    key: isGiven(key) ? readKey(key) : undefined,
  };
}

function isGiven(path: string | undefined): path is string {
  return path !== undefined && path !== '';
}

function readKey(path: string): string {
  const text = readPem('the key', path);
  if (/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(text)) return text;
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot use the key "${path}": it holds no private key as PEM`,
  );
}
