import { runToEnd } from '../run-to-end.ts';
import { programName, withContext } from './context.ts';
import { getCommand } from './file-commands.ts';
import type { PlainGet } from './plain-get.ts';

/** The whole program if its command is a plain get. */
export async function getPlainly({ name, target, remoteUrl, cacheDir }: PlainGet): Promise<void> {
  const flags = {
    ...(remoteUrl !== undefined && { remoteUrl }),
    ...(cacheDir !== undefined && { cacheDir }),
  };
  await runToEnd(programName, () => withContext(flags, (context) => getCommand(context, name, target, {})));
}
