// Writes docs/API.md from the doc comments of what src/index.ts exports. With `--check` it changes nothing and fails if the page is
// out of date, if an export has no doc comment, or if it has no `@example` (a type may be in the example of another export).
// test/e2e/api-examples.slow.test.ts runs the examples.
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Node, Project } from 'ts-morph';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const page = join(root, 'docs', 'API.md');
const problems = [];

/** The doc comments of a declaration: its text, and its tags by name. */
function docsOf(declaration) {
  const documented = Node.isVariableDeclaration(declaration)
    ? declaration.getVariableStatementOrThrow()
    : declaration;
  const docs = documented.getJsDocs();
  const tags = docs.flatMap((doc) => doc.getTags());
  const textOf = (name) =>
    tags.filter((tag) => tag.getTagName() === name).map((tag) => tag.getCommentText() ?? '');
  return {
    text: docs.map((doc) => doc.getDescription().trim()).join('\n\n'),
    params: tags
      .filter((tag) => tag.getTagName() === 'param')
      .map((tag) => `\`${tag.getName()}\`: ${tag.getCommentText() ?? ''}`),
    returns: textOf('returns'),
    throws: tags
      .filter((tag) => tag.getTagName() === 'throws')
      .map((tag) => tag.getText().replace(/^@throws\s*/, '')),
    examples: textOf('example'),
  };
}

const oneLine = (text) => text.replaceAll(/\s*\n[\s*]*/g, ' ').trim();

/** A function, method or constructor without its body. */
function signature(node) {
  const body = node.getBody?.();
  const text =
    body === undefined ? node.getText() : node.getText().slice(0, body.getStart() - node.getStart());
  return text
    .replace(/^export /, '')
    .replace(/^((?:static )?)async /, '$1')
    .replace(/^\*/, '')
    .trim()
    .replace(/;?$/, ';');
}

function commentOf(member) {
  return (
    member
      .getJsDocs?.()
      .map((doc) => `${doc.getText()}\n`)
      .join('') ?? ''
  );
}

function memberText(member) {
  if (Node.isPropertyDeclaration(member)) return `${commentOf(member)}${member.getText()}`;
  return `${commentOf(member)}${signature(member)}`;
}

/** A class as a reader of the API sees it: no bodies, no private members. */
function classText(declaration) {
  const head = declaration
    .getText()
    .slice(0, declaration.getText().indexOf('{'))
    .replace(/^export /, '');
  const shown = declaration.getMembers().filter((member) => {
    const isPrivate = member.getText().startsWith('private ') || member.getText().startsWith('static #');
    return (
      !isPrivate &&
      !Node.isPrivateIdentifier(member.getNameNode?.()) &&
      !commentOf(member).includes('@internal')
    );
  });
  // The text of a member begins without its indentation; its further lines have it.
  const lines = shown.flatMap((member) => memberText(member).split(/\n(?: {2})?/));
  return `${head.trim()} {\n${lines.map((line) => `  ${line}`).join('\n')}\n}`;
}

function isValue(declaration) {
  return (
    Node.isClassDeclaration(declaration) ||
    Node.isFunctionDeclaration(declaration) ||
    Node.isVariableDeclaration(declaration)
  );
}

function declarationText(declaration) {
  if (Node.isClassDeclaration(declaration)) return classText(declaration);
  if (Node.isFunctionDeclaration(declaration)) return signature(declaration);
  return declaration.getText().replace(/^export /, '');
}

/** The first export whose example uses a type, by the type's name. */
const exampleOf = new Map();

function noteExamples(name, declaration) {
  for (const example of docsOf(declaration).examples) {
    for (const [word] of example.matchAll(/\b[A-Z]\w+/g)) {
      if (!exampleOf.has(word)) exampleOf.set(word, name);
    }
  }
}

function section(name, declaration) {
  const { text, params, returns, throws, examples } = docsOf(declaration);
  const file = declaration
    .getSourceFile()
    .getFilePath()
    .slice(root.length + 1);
  if (text === '') problems.push(`${file}: ${name} has no doc comment`);
  const elsewhere = isValue(declaration) ? undefined : exampleOf.get(name);
  if (examples.length === 0 && elsewhere === undefined) problems.push(`${file}: ${name} has no @example`);
  const facts = [
    ...params,
    ...returns.map((value) => `returns ${value}`),
    ...throws.map((value) => `throws ${value}`),
  ].map((fact) => `- ${oneLine(fact)}`);
  const parts = [
    `### ${name}`,
    text,
    `\`\`\`ts\n${declarationText(declaration)}\n\`\`\``,
    facts.join('\n'),
    examples.length > 0 || elsewhere === undefined
      ? ''
      : `Example: [${elsewhere}](#${elsewhere.toLowerCase()})`,
    ...examples.map((example) => example.trim().replace(/^```\w*/, '```ts example')),
  ];
  return parts.filter((part) => part !== '').join('\n\n');
}

function render() {
  const project = new Project({
    tsConfigFilePath: join(root, 'tsconfig.json'),
    skipAddingFilesFromTsConfig: true,
  });
  const index = project.addSourceFileAtPath(join(root, 'src', 'index.ts'));
  const exported = [...index.getExportedDeclarations()].map(([name, [declaration]]) => ({
    name,
    declaration,
  }));
  for (const { name, declaration } of exported) noteExamples(name, declaration);
  const groups = [
    { title: 'Classes and functions', members: exported.filter((one) => isValue(one.declaration)) },
    { title: 'Types', members: exported.filter((one) => !isValue(one.declaration)) },
  ];
  const head = `# API reference

What \`import … from 'filetracker'\` exports. [CLIENT.md](CLIENT.md) has the tour; this page has every export, with an example that a
test runs. \`node scripts/api-reference.mjs\` generates it from the doc comments: edit those, not this page.`;
  const body = groups.map(({ title, members }) => {
    const links = members.map(({ name }) => `[${name}](#${name.toLowerCase()})`).join(' · ');
    return [`## ${title}`, links, ...members.map(({ name, declaration }) => section(name, declaration))].join(
      '\n\n',
    );
  });
  return `${[head, ...body].join('\n\n')}\n`;
}

const text = render();
if (process.argv.includes('--check')) {
  let current;
  try {
    current = readFileSync(page, 'utf8');
  } catch {
    // There is no page yet.
  }
  if (current !== text) problems.push('docs/API.md is out of date: run `node scripts/api-reference.mjs`');
  for (const problem of problems) console.error(problem);
  if (problems.length > 0) process.exitCode = 1;
} else {
  writeFileSync(page, text);
}
