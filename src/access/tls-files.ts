import { createPrivateKey, X509Certificate, type KeyObject } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import { cannot, errnoOf, messageOf, type FiletrackerError } from '../core/errors.ts';

/** Absolute paths of PEM files. */
export interface TlsFiles {
  readonly key: string;
  readonly certificate: string;
  readonly clientAuthorities: string | undefined;
}

/** Key and certificates of a TLS server, as PEM text. */
export interface TlsMaterial {
  readonly key: string;
  readonly certificate: string;
  /** Authorities that sign certificates of clients; `undefined` if clients need none. */
  readonly clientAuthorities?: string | undefined;
}

/**
 * Reads the key and the certificates, and checks that they match: errors of OpenSSL would name no file.
 * @throws FiletrackerError `invalid-argument`.
 */
export async function readTlsMaterial(files: TlsFiles): Promise<TlsMaterial> {
  const { clientAuthorities } = files;
  const material = {
    key: await readPem(files.key),
    certificate: await readPem(files.certificate),
    clientAuthorities: clientAuthorities === undefined ? undefined : await readPem(clientAuthorities),
  };
  const key = parseKey(files.key, material.key);
  const certificate = parseCertificate(files.certificate, material.certificate);
  if (!certificate.checkPrivateKey(key)) {
    throw unusable('key', files.key, `it does not belong to the certificate "${files.certificate}"`);
  }
  if (clientAuthorities !== undefined) parseCertificate(clientAuthorities, material.clientAuthorities ?? '');
  try {
    createSecureContext({ key: material.key, cert: material.certificate, ca: material.clientAuthorities });
  } catch (error) {
    throw unusable('certificate', files.certificate, `OpenSSL rejects it (${messageOf(error)})`, error);
  }
  return material;
}

function unusable(what: string, path: string, state: string, cause?: unknown): FiletrackerError {
  return cannot('invalid-argument', `use the ${what} "${path}" for TLS`, state, { cause });
}

async function readPem(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw unusable('file', path, `it cannot be read (${errnoOf(error) ?? messageOf(error)})`, error);
  }
}

function parseKey(path: string, text: string): KeyObject {
  try {
    return createPrivateKey(text);
  } catch (error) {
    throw unusable('key', path, 'it is not a private key in PEM, or it has a passphrase', error);
  }
}

function parseCertificate(path: string, text: string): X509Certificate {
  try {
    return new X509Certificate(text);
  } catch (error) {
    throw unusable('certificate', path, 'it is not a certificate in PEM', error);
  }
}
