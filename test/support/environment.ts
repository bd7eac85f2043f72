import { accessSync, constants, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname } from 'node:path';
import { otherS3Endpoint } from './engine-names.ts';

/**
 * What the surroundings set for other programs: proxies, certificates, addresses and keys of services, colours, and the
 * settings of our own programs. A test sets what it is about. Keys of AWS stay if a server of S3 is named for the tests.
 */
const foreign = [
  /^(?:https?|all|no|ftp)_proxy$/i,
  /^FILETRACKER_(?!ENGINES$|(?:TEST|PROOF|PROPERTY|ATTACK|SOAK)(?:_|$))/,
  /^PG/,
  /^(?:NODE_EXTRA_CA_CERTS|NODE_USE_ENV_PROXY|NODE_OPTIONS|NODE_TLS_REJECT_UNAUTHORIZED|UV_THREADPOOL_SIZE)$/,
  /^SSL_CERT_(?:FILE|DIR)$/,
  /^(?:NO_COLOR|FORCE_COLOR|COLORTERM|CLICOLOR(?:_FORCE)?)$/,
  /^(?:LISTEN_(?:FDS|PID|FDNAMES)|NOTIFY_SOCKET|INVOCATION_ID|JOURNAL_STREAM)$/,
  /^XDG_/,
  /^LANGUAGE$/,
];

function isOpenToOthers(folder: string): boolean {
  for (let at = folder; ; at = dirname(at)) {
    if ((statSync(at).mode & 0o001) === 0) return false;
    if (at === dirname(at)) return true;
  }
}

function isUsable(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK | constants.X_OK);
    return isOpenToOthers(folder);
  } catch {
    return false;
  }
}

/** Where tests make their folders: root runs some programs as other users, who must come that far. */
function temporaryRoot(): string {
  const own = tmpdir();
  if (process.getuid?.() !== 0 || isUsable(own)) return own;
  return ['/tmp', '/var/tmp'].find(isUsable) ?? own;
}

/** Makes the surroundings of a test run the same everywhere; its processes, and the programs they start, inherit them. */
export function cleanEnvironment(): void {
  for (const name of Object.keys(process.env)) {
    const isKey = name.startsWith('AWS_') && otherS3Endpoint === '';
    if (isKey || foreign.some((form) => form.test(name))) delete process.env[name];
  }
  process.env['TMPDIR'] = temporaryRoot();
  // Shells, perl and initdb complain of a locale that is not installed, or translate what they print.
  process.env['LC_ALL'] = 'C.UTF-8';
  process.umask(0o022);
}
