// Which authorities https trusts: those of the system as curl finds them, and those that the user adds.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createSecureContext, rootCertificates } from 'node:tls';
import type { SecureContext } from 'node:tls';
import { FiletrackerError, messageOf } from '../../core/errors.ts';
import { certificatesIn, readAuthorities } from './certificate-files.ts';
import type { TlsOptions } from './certificate-files.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** Where systems keep the authorities that they trust; the first that is there counts. */
const systemFiles = [
  '/etc/ssl/certs/ca-certificates.crt', // Debian, Ubuntu, Arch, Gentoo
  '/etc/pki/tls/certs/ca-bundle.crt', // Fedora, RHEL 6
  '/etc/ssl/ca-bundle.pem', // openSUSE
  '/etc/pki/tls/cacert.pem', // OpenELEC
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem', // RHEL 7
  '/etc/ssl/cert.pem', // Alpine, macOS, FreeBSD
];

/** What the system trusts; SSL_CERT_FILE and SSL_CERT_DIR stand in for it, and NODE_EXTRA_CA_CERTS adds to it. */
export function trustedAuthorities(environment: Environment): string[] {
  const { SSL_CERT_FILE: file, SSL_CERT_DIR: folders, NODE_EXTRA_CA_CERTS: extra } = environment;
  const named = [
    ...(given(file) ? certificatesIn(readAuthorities(file ?? '', 'SSL_CERT_FILE')) : []),
    ...(given(folders) ? certificatesInFolders(folders ?? '') : []),
  ];
  const trusted = named.length > 0 ? named : systemAuthorities();
  return given(extra)
    ? [...trusted, ...certificatesIn(readAuthorities(extra ?? '', 'NODE_EXTRA_CA_CERTS'))]
    : trusted;
}

function given(value: string | undefined): boolean {
  return value !== undefined && value !== '';
}

function certificatesInFolders(folders: string): string[] {
  const found = folders
    .split(':')
    .flatMap((folder) => filesIn(folder).flatMap((name) => certificatesIn(textOf(join(folder, name)) ?? '')));
  if (found.length > 0) return [...new Set(found)];
  throw new FiletrackerError(
    'invalid-argument',
    `Cannot use SSL_CERT_DIR "${folders}": it holds no certificate`,
  );
}

function systemAuthorities(): string[] {
  for (const path of systemFiles) {
    const found = certificatesIn(textOf(path) ?? '');
    if (found.length > 0) return found;
  }
  return [...rootCertificates];
}

function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

/**
 * What connections by https have in common; made once, because it takes as long as 20 requests.
 * @throws FiletrackerError `invalid-argument` for certificates that TLS does not take.
 */
export function secureContextOf({ ca, cert, key }: TlsOptions, environment: Environment): SecureContext {
  const trusted = trustedAuthorities(environment);
  if (ca !== undefined && certificatesIn(ca).length === 0)
    refuseTls('the authority holds no certificate as PEM');
  try {
    return createSecureContext({
      ca: ca === undefined ? trusted : [...trusted, ca],
      ...(cert !== undefined && { cert }),
      ...(key !== undefined && { key }),
    });
  } catch (error) {
    return refuseTls(`TLS does not take them (${messageOf(error)})`);
  }
}

function refuseTls(state: string): never {
  throw new FiletrackerError('invalid-argument', `Cannot use the certificates for https: ${state}`);
}
