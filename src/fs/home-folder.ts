import { homedir, userInfo } from 'node:os';

/** The home folder of the user; `undefined` if neither HOME nor the password file names one. */
export function homeFolder(): string | undefined {
  for (const look of [homedir, () => userInfo().homedir]) {
    try {
      const folder = look();
      if (folder !== '') return folder;
    } catch {
      // The user has no entry, as in many containers.
    }
  }
  return undefined;
}
