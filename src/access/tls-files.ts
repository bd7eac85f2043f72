import { createPrivateKey, X509Certificate, type KeyObject } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import { errnoOf, FiletrackerError, messageOf } from '../core/errors.ts';

/** Absolute paths of PEM files. */
export interface TlsFiles {
  readonly key: string;
  readonly certificate: string;
  readonly clientAuthorities: string | undefined;
}

/** What a server needs to speak TLS, as PEM text. */
export interface TlsMaterial {
  readonly key: string;
  readonly certificate: string;
  /** Authorities that sign certificates of clients; `undefined` if clients need none. */
  readonly clientAuthorities?: string | undefined;
}

/**
 * Reads what TLS is spoken with, and sees to it that it goes together: what OpenSSL says of it names no file.
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
    refuse('key', files.key, `it is not that of the certificate "${files.certificate}"`);
  }
  if (clientAuthorities !== undefined) parseCertificate(clientAuthorities, material.clientAuthorities ?? '');
  try {
    createSecureContext({ key: material.key, cert: material.certificate, ca: material.clientAuthorities });
  } catch (error) {
    refuse('certificate', files.certificate, `TLS does not take it (${messageOf(error)})`, error);
  }
  return material;
}

function refuse(what: string, path: string, state: string, cause?: unknown): never {
  throw new FiletrackerError('invalid-argument', `Cannot use the ${what} "${path}" for TLS: ${state}`, {
    cause,
  });
}

async function readPem(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    return refuse('file', path, `it cannot be read (${errnoOf(error) ?? messageOf(error)})`, error);
  }
}

function parseKey(path: string, text: string): KeyObject {
  try {
    return createPrivateKey(text);
  } catch (error) {
    return refuse('key', path, 'it is no private key as PEM, or one with a passphrase', error);
  }
}

function parseCertificate(path: string, text: string): X509Certificate {
  try {
    return new X509Certificate(text);
  } catch (error) {
    return refuse('certificate', path, 'it is none as PEM', error);
  }
}
