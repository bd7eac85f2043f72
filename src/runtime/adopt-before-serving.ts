import type { Logger } from 'pino';
import { folderKind } from '../maintenance/folder-kind.ts';
import { adoptLegacyFolder } from '../maintenance/migration/legacy/adopt.ts';
import type { ProgressListener } from '../maintenance/progress.ts';

/** Large blobs are decoded for their size before serving begins only up to so much; the rest is verified behind it. */
const decodedStoredBytesMax = 1024 ** 3;
const tellIntervalMs = 5000;
const loggedProblemsMax = 1000;

/**
 * Takes a folder of the legacy server over, version 2, where the server is told to serve one: the store comes to
 * lie in its `store-3/`, and the rest stays as it is, for the old server to be started again. Done once; one
 * that was interrupted goes on.
 * @throws FiletrackerError `store-locked`, and of the disk.
 */
export async function adoptBeforeServing(folder: string, logger: Logger): Promise<void> {
  const found = await folderKind(folder);
  if (found.kind !== 'to-adopt') return;
  const { source, store } = found;
  logger.info({ source, store }, 'a store of filetracker 2: taking its files over; nothing of it is changed');
  const report = await adoptLegacyFolder(source, store, {
    decodedStoredBytesMax,
    listener: progressLog(logger),
  });
  for (const problem of report.problems.slice(0, loggedProblemsMax)) {
    logger.warn(problem, 'not taken over as it should be');
  }
  const { names, blobs, problemCount } = report;
  logger.info({ names, blobs, problems: problemCount }, 'the files of the old store are here');
}

function progressLog(logger: Logger): ProgressListener {
  let toldMs = performance.now();
  return {
    stepAdvanced: (done) => {
      if (performance.now() - toldMs < tellIntervalMs) return;
      toldMs = performance.now();
      logger.info({ done }, 'taking files over');
    },
    stepEnded: (report) => logger.info(report, `taking files over: ${report.step} done`),
  };
}
