import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { temporaryFolder } from './temporary-folder.ts';

export interface MadeCertificate {
  readonly key: string;
  readonly cert: string;
  readonly keyFile: string;
  readonly certFile: string;
}

/** A certificate for 127.0.0.1 and the given names that signs itself; for the running test alone. */
export async function madeCertificate(...names: readonly string[]): Promise<MadeCertificate> {
  const folder = await temporaryFolder();
  const [keyFile, certFile] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
  const others = names.map((name) => `,DNS:${name}`).join('');
  const subject = ['-subj', '/CN=localhost', '-addext', `subjectAltName=IP:127.0.0.1${others}`];
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'];
  const words = ['req', '-x509', ...curve, '-nodes', '-keyout', keyFile, '-out', certFile, ...subject];
  execFileSync('openssl', words, { stdio: 'ignore' });
  return { keyFile, certFile, key: readFileSync(keyFile, 'utf8'), cert: readFileSync(certFile, 'utf8') };
}
