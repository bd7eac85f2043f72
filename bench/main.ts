import { cpus, release, type } from 'node:os';
import { printTable, type Row } from './table.ts';

/** The parts, loaded when they are asked for. Each measures in one run and gives its figures as rows. */
const parts: Record<string, () => Promise<{ run(): Promise<readonly Row[]> }>> = {
  server: () => import('./server.ts'),
  bounds: () => import('./bounds.ts'),
  client: () => import('./client.ts'),
  'scale-out': () => import('./scale-out.ts'),
};

const wanted = process.argv.slice(2);
const unknown = wanted.find((name) => !(name in parts));
if (unknown !== undefined) {
  console.error(`Cannot measure "${unknown}": the parts are ${Object.keys(parts).join(', ')}`);
  process.exit(2);
}
console.log(
  `Node ${process.version}, ${type()} ${release()}, ${cpus().length} cores (${cpus()[0]?.model ?? ''})`,
);
let missed = 0;
for (const [name, load] of Object.entries(parts)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  const part = await load();
  const rows = await part.run();
  printTable(name, rows);
  missed += rows.filter((row) => row.met === false).length;
}
console.log(missed === 0 ? '\nAll targets met.' : `\n${missed} targets missed.`);
