// The authorities that https trusts: those of the system, found as curl finds them, and those that the user adds.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createSecureContext, rootCertificates, type SecureContext } from 'node:tls';
import { cannot, messageOf } from '../../core/errors.ts';
import { certificatesIn, readAuthorities, type TlsOptions } from './certificate-files.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** Where systems keep the authorities that they trust; the first file that exists counts. */
const systemFiles = [
  '/etc/ssl/certs/ca-certificates.crt', // Debian, Ubuntu, Arch, Gentoo
  '/etc/pki/tls/certs/ca-bundle.crt', // Fedora, RHEL 6
  '/etc/ssl/ca-bundle.pem', // openSUSE
  '/etc/pki/tls/cacert.pem', // OpenELEC
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem', // RHEL 7
  '/etc/ssl/cert.pem', // Alpine, macOS, FreeBSD
];

/** SSL_CERT_FILE and SSL_CERT_DIR replace the authorities of the system; NODE_EXTRA_CA_CERTS adds to them. */
export function trustedAuthorities(environment: Environment): string[] {
  const { SSL_CERT_FILE: file, SSL_CERT_DIR: folders, NODE_EXTRA_CA_CERTS: extra } = environment;
  const named = [
    ...(file ? certificatesIn(readAuthorities(file, 'SSL_CERT_FILE')) : []),
    ...(folders ? certificatesInFolders(folders) : []),
  ];
  const trusted = named.length > 0 ? named : systemAuthorities();
  return extra ? [...trusted, ...certificatesIn(readAuthorities(extra, 'NODE_EXTRA_CA_CERTS'))] : trusted;
}

function certificatesInFolders(folders: string): string[] {
  const paths = folders
    .split(':')
    .flatMap((folder) => (orNone(() => readdirSync(folder)) ?? []).map((name) => join(folder, name)));
  const found = new Set(paths.flatMap(certificatesInFile));
  if (found.size > 0) return [...found];
  throw cannot('invalid-argument', `use SSL_CERT_DIR "${folders}"`, 'it holds no certificate');
}

function systemAuthorities(): string[] {
  for (const path of systemFiles) {
    const found = certificatesInFile(path);
    if (found.length > 0) return found;
  }
  return [...rootCertificates];
}

function certificatesInFile(path: string): string[] {
  return certificatesIn(orNone(() => readFileSync(path, 'utf8')) ?? '');
}

function orNone<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

/**
 * What all https connections share; made once, because it takes as long as 20 requests.
 * @throws FiletrackerError `invalid-argument` for certificates that TLS does not accept.
 */
export function secureContextOf({ ca, cert, key }: TlsOptions, environment: Environment): SecureContext {
  const trusted = trustedAuthorities(environment);
  const action = 'use the certificates for https';
  if (ca !== undefined && certificatesIn(ca).length === 0) {
    throw cannot('invalid-argument', action, 'the authority holds no certificate as PEM');
  }
  try {
    return createSecureContext({
      ca: ca === undefined ? trusted : [...trusted, ca],
      ...(cert !== undefined && { cert }),
      ...(key !== undefined && { key }),
    });
  } catch (error) {
    throw cannot('invalid-argument', action, `TLS does not accept them (${messageOf(error)})`);
  }
}
