import { expect, test } from 'vitest';
import { linesOf } from './lines.ts';

async function cut(pieces: readonly (string | Buffer)[], endByte?: number): Promise<string[]> {
  const source = async function* (): AsyncGenerator<Buffer> {
    for (const piece of pieces) yield Buffer.from(piece);
  };
  const lines: string[] = [];
  for await (const line of linesOf(source(), endByte)) lines.push(line);
  return lines;
}

test('lines end at a line feed and nowhere else', async () => {
  const odd = [
    '\u{FEFF}/a',
    '/blank ',
    '/\u3000',
    '/\u00a0',
    '/\u{FEFF}',
    '/\r',
    '/\u2028',
    '',
    '/\u0085',
    '/last',
  ];
  expect(await cut([odd.join('\n')])).toEqual(odd);
  expect(await cut([`${odd.join('\n')}\n`])).toEqual(odd);
  // Cut anywhere, also within a character.
  expect(await cut([...Buffer.from(odd.join('\n'))].map((byte) => Buffer.from([byte])))).toEqual(odd);
});

test('lines end at NUL if that is asked for', async () => {
  expect(await cut(['/a\nb\0/c\0'], 0)).toEqual(['/a\nb', '/c']);
});

test('a line that is too long or no UTF-8 is an error', async () => {
  await expect(cut(['a'.repeat(70_000)])).rejects.toMatchObject({ code: 'protocol' });
  await expect(cut([Buffer.from([0x2f, 0xff, 0x0a])])).rejects.toMatchObject({ code: 'protocol' });
});
