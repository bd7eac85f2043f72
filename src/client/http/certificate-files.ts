import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { cannot, messageOf } from '../../core/errors.ts';
import { translatingErrors } from '../local-errors.ts';

/** Certificates for https, as PEM text. */
export interface TlsOptions {
  /** Authorities to trust besides those of the system. */
  readonly ca?: string | undefined;
  /** The client's certificate, and its key. */
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}

const pemCertificate = /-----BEGIN (X509 )?CERTIFICATE-----[^-]+-----END \1CERTIFICATE-----/g;

export function certificatesIn(pem: string): string[] {
  return pem.match(pemCertificate) ?? [];
}

/**
 * Reads the files whose paths stand in place of the texts; an empty path counts as none.
 * @throws FiletrackerError `invalid-argument` for a file without a readable certificate or key; `io`.
 */
export function readTlsFiles({ ca, cert, key }: TlsOptions): TlsOptions {
  return {
    ca: ca ? readAuthorities(ca, 'the authority') : undefined,
    cert: cert ? readAuthorities(cert, 'the certificate') : undefined,
    key: key ? readKey(key) : undefined,
  };
}

/**
 * Reads a file of certificates. `givenBy` names the setting that holds the path.
 * @throws FiletrackerError `invalid-argument` if it holds no certificate or an unreadable one; `io`.
 */
export function readAuthorities(path: string, givenBy: string): string {
  const text = readPem(path, givenBy);
  const found = certificatesIn(text);
  const fault =
    found.length === 0
      ? 'it holds no certificate as PEM'
      : found.map(faultOf).find((state) => state !== undefined);
  if (fault !== undefined) throw cannot('invalid-argument', `use ${givenBy} "${path}"`, fault);
  return text;
}

function faultOf(certificate: string): string | undefined {
  try {
    return new X509Certificate(certificate).raw.length > 0 ? undefined : 'a certificate in it is empty';
  } catch (error) {
    return `a certificate in it cannot be read (${messageOf(error)})`;
  }
}

function readKey(path: string): string {
  const text = readPem(path, 'the key');
  if (/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(text)) return text;
  throw cannot('invalid-argument', `use the key "${path}"`, 'it holds no private key as PEM');
}

function readPem(path: string, givenBy: string): string {
  return translatingErrors(`read ${givenBy} "${path}"`, () => readFileSync(path, 'utf8'));
}
