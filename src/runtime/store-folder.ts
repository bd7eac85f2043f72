import { access, constants, rmdir } from 'node:fs/promises';
import type { Logger } from 'pino';
import { errnoOf, FiletrackerError } from '../core/errors.ts';
import { makeFolders, privateFolderMode } from '../fs/folders.ts';
import { folderKind } from '../maintenance/folder-kind.ts';
import { adoptLegacyFolder } from '../maintenance/migration/legacy/adopt.ts';
import type { ProgressListener } from '../maintenance/progress.ts';

const folderStates: Readonly<Record<string, string>> = {
  EACCES: 'this user may not write there',
  EPERM: 'this user may not write there',
  EROFS: 'its file system is read-only',
  ENOTDIR: 'it, or a part of its path, is not a folder',
  EEXIST: 'it is not a folder',
  ENOENT: 'its file system does not support folders',
  ENOSPC: 'its disk is full',
};

/**
 * Creates the folder of a store if it is missing and checks that this user can use it.
 * @returns the folders that it created, the topmost first.
 * @throws FiletrackerError `invalid-argument`.
 */
export async function prepareFolder(folder: string): Promise<readonly string[]> {
  try {
    const made = makeFolders(folder, privateFolderMode);
    await access(folder, constants.R_OK | constants.W_OK | constants.X_OK);
    return made;
  } catch (error) {
    const errno = errnoOf(error) ?? '';
    throw new FiletrackerError(
      'invalid-argument',
      `Cannot use the folder "${folder}": ${folderStates[errno] ?? errno}; choose another with -d`,
      { cause: error },
    );
  }
}

/** Removes the folders that were created for a server that did not start, except those that are not empty. */
export async function removeUnused(made: readonly string[]): Promise<void> {
  for (const folder of made.toReversed()) await rmdir(folder).catch(() => undefined);
}

/** The stored bytes of large blobs that are decoded for their size before serving begins; verification reads the rest. */
const decodedStoredBytesMax = 1024 ** 3;
const logIntervalMs = 5000;
const loggedProblemsMax = 1000;

/**
 * Adopts a folder of filetracker 2 if the server is started on one. The new store is in its `store-3/`; nothing else
 * in it changes, so that the old server can be started again. Resumes an adoption that was interrupted.
 * @throws FiletrackerError `store-locked`, and errors of the disk.
 */
export async function adoptBeforeServing(folder: string, logger: Logger): Promise<void> {
  const found = await folderKind(folder);
  if (found.kind !== 'to-adopt') return;
  const { source, store } = found;
  logger.info({ source, store }, 'adopting a store of filetracker 2; nothing in it is changed');
  const report = await adoptLegacyFolder(source, store, {
    decodedStoredBytesMax,
    listener: progressLog(logger),
  });
  for (const problem of report.problems.slice(0, loggedProblemsMax)) logger.warn(problem, 'not adopted');
  const { names, blobs, problemCount } = report;
  logger.info({ names, blobs, problems: problemCount }, 'the old store is adopted');
}

function progressLog(logger: Logger): ProgressListener {
  let loggedMs = performance.now();
  return {
    stepAdvanced: (done) => {
      if (performance.now() - loggedMs < logIntervalMs) return;
      loggedMs = performance.now();
      logger.info({ done }, 'adopting');
    },
    stepEnded: (report) => logger.info(report, `adopting: ${report.step} done`),
  };
}
