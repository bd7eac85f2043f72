import { appendFileSync } from 'node:fs';

// `npm run test:proof` sets these; `npm run test:full` runs the short form with a seed of its own each time.

/** Whether this is the full run. */
export const fullProof = process.env['FILETRACKER_PROOF'] === 'full';

/** Repeats the run; printed with every failure by way of the tests' names. */
export const proofSeed = process.env['FILETRACKER_PROOF_SEED'] ?? String(Date.now() % 1_000_000);

/** A figure of the short run, and of the full one. */
export function scaled(short: number, full: number): number {
  return fullProof ? full : short;
}

/** Notes a figure for the report of `npm run test:proof`; a full run without a report prints it. */
export function reportFigure(promise: string, figure: string): void {
  const path = process.env['FILETRACKER_PROOF_REPORT'];
  if (path !== undefined) appendFileSync(path, `${JSON.stringify({ promise, figure })}\n`);
  else if (fullProof) console.log(`${promise}: ${figure}`);
}

/** The same for a number of kills, of which the report gives the sum. */
export function reportKills(promise: string, kills: number, figure: string): void {
  reportFigure(promise, `${kills} kills ${figure}`);
  const path = process.env['FILETRACKER_PROOF_REPORT'];
  if (path !== undefined) appendFileSync(path, `${JSON.stringify({ kills })}\n`);
}
