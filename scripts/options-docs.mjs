// Writes the tables of options in docs/OPERATIONS.md from the tables of settings. With `--check` it changes nothing and fails if
// the page is out of date. It reads the tables from dist/, because not every supported Node runs TypeScript.
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { clientSpec } from '../dist/cli/client/commands.js';
import { cleanerSpec, migrateSpec, recoverSpec } from '../dist/cli/maintenance-commands.js';
import { serverSpec } from '../dist/cli/server/commands.js';
import { defaultOf } from '../dist/config/setting.js';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const page = join(root, 'docs', 'OPERATIONS.md');
const [begin, end] = ['<!-- options:begin -->', '<!-- options:end -->'];

const cell = (text) => text.replaceAll('|', '\\|');

function rowOf(setting) {
  const { flags, aliases = [], variable, required, help } = setting;
  const spelled = [flags, ...aliases].map((text) => `\`${text}\``).join(', ');
  const initially = defaultOf({ ...setting, variable: undefined }) ?? (required === true ? 'required' : '');
  const named = variable === undefined ? '' : `\`${variable}\``;
  return `| ${[spelled, named, initially, help].map(cell).join(' | ')} |`;
}

function tableOf({ heading, settings }) {
  const rows = Object.values(settings).map(rowOf);
  return `**${heading}**\n\n| flag | variable | default | meaning |\n|---|---|---|---|\n${rows.join('\n')}\n`;
}

/** The tables of a program and its commands; a section that two of them share is printed once. */
function tablesOf(spec, path = spec.name, printed = new Set()) {
  const sections = [...(spec.sections ?? []), ...(spec.global === undefined ? [] : [spec.global])];
  const fresh = sections.filter((section) => !printed.has(section));
  for (const section of fresh) printed.add(section);
  const own = fresh.length === 0 ? [] : [`#### ${path}\n`, ...fresh.map(tableOf)];
  const below = (spec.commands ?? []).flatMap((sub) => tablesOf(sub, `${path} ${sub.name}`, printed));
  return [...own, ...below];
}

const printed = new Set();
const client = { ...clientSpec, commands: [] };
const tables = [serverSpec, recoverSpec, migrateSpec, cleanerSpec, client].flatMap((spec) =>
  tablesOf(spec, spec.name, printed),
);
const text = readFileSync(page, 'utf8');
const [from, to] = [text.indexOf(begin), text.indexOf(end)];
if (from === -1 || to === -1) throw new Error(`docs/OPERATIONS.md lacks ${begin} or ${end}`);
const wanted = `${text.slice(0, from)}${begin}\n\n${tables.join('\n')}\n${text.slice(to)}`;
if (wanted === text) process.exit(0);
if (process.argv.includes('--check')) {
  console.error('docs/OPERATIONS.md: the options are out of date; run node scripts/options-docs.mjs');
  process.exit(1);
}
writeFileSync(page, wanted);
