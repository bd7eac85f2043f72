// Keeps the phrases that make our text read like a translation out of comments, messages and documents. The table has the phrase and
// what to write instead; docs/ARCHITECTURE.md has the glossary. `npm test` runs it. Quote a phrase as `code` where it is a name.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const phrases = [
  [/\banew\b/i, 'again'],
  [/\bwhoever\b/i, 'name the subject: the client, the caller'],
  [/\bnobody\b/i, 'no process, no client'],
  [/\bsomebody\b|\beverybody\b/i, 'a client, all clients'],
  [/\bas ever\b/i, 'as before'],
  [/\bis told\b|\bare told\b|\btold (?:of|that)\b/i, 'receives, is notified, learns'],
  [/\b(?:undefined|false|true|none|0) where\b/i, 'if'],
  [/\bin the place of\b/i, 'instead of'],
  [/\bgoes on\b|\bgo on\b/i, 'continues, resumes'],
  [/\blies (?:in|on|at|there|beside)\b|\blie (?:in|on|at|there|beside)\b/i, 'is stored in'],
  [/\bstrays?\b/i, 'orphan'],
  [/\ba content\b(?!-)|\bcontents that\b/i, 'blob'],
  [/\bmend(?:s|ed|able)?\b/i, 'repair'],
  [/\bhand(?:s|ed)? out\b/i, 'materialize, serve'],
  [/\bso (?:many|much|long) (?:as|that)\b|\bso many\b/i, 'a number'],
  [/\bof ours\b/i, 'of this project'],
];

/** Findings that a folder had when this check began. They may only become fewer: lower the number, or remove the row, when they do. */
const known = {
  'src/catalog': 4,
};

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const comment = /\/\*[\s\S]*?\*\/|\/\/[^\n]*/;
const string = /'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`|"(?:[^"\\\n]|\\.)*"/;
const inSource = new RegExp(`${comment.source}|${string.source}`, 'g');
const blank = (text) => text.replaceAll(/[^\n]/g, ' ');

/** The text that people read, in its place: all else is blank, so that line numbers hold. */
function prose(path, text) {
  const noCode = (part) => part.replaceAll(/`[^`\n]*`/g, blank);
  if (path.endsWith('.md')) return noCode(text.replaceAll(/^```[\s\S]*?^```$/gm, blank));
  let end = 0;
  let kept = '';
  for (const { 0: part, index } of text.matchAll(inSource)) {
    // A string without a blank is a name.
    const shown = part.startsWith('/') ? noCode(part) : part.includes(' ') ? part : blank(part);
    kept += blank(text.slice(end, index)) + shown;
    end = index + part.length;
  }
  return kept;
}

const files = ['src', 'docs'].flatMap((folder) =>
  readdirSync(join(root, folder), { recursive: true }).map((name) => join(folder, name)),
);
const pages = ['README.md', 'CONTRIBUTING.md', 'SECURITY.md'];
// Made from the doc comments, which are checked where they are.
const generated = 'docs/API.md';
const findings = new Map();
for (const path of [...files.filter((name) => /\.(?:ts|md)$/.test(name) && name !== generated), ...pages]) {
  const lines = prose(path, readFileSync(join(root, path), 'utf8')).split('\n');
  for (const [index, line] of lines.entries()) {
    for (const [phrase, better] of phrases) {
      const match = phrase.exec(line);
      if (match === null) continue;
      const folder = path.split('/').slice(0, 2).join('/');
      const finding = `${path}:${index + 1}: "${match[0]}": write "${better}"`;
      findings.set(folder, [...(findings.get(folder) ?? []), finding]);
    }
  }
}
for (const [folder, found] of findings) {
  if (process.argv.includes('--counts')) console.log(`  '${folder}': ${found.length},`);
  if (found.length <= (known[folder] ?? 0)) continue;
  for (const finding of found) console.error(finding);
  console.error(`${folder}: ${found.length} phrases to avoid; ${known[folder] ?? 0} are known`);
  process.exitCode = 1;
}
