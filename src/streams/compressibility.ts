/** Content below this size says too little about itself, and costs next to nothing to compress. */
const sampleMinBytes = 512;
/** Pieces that are looked at: an eighth of the content, within these bounds, and of long content two of them. */
const sampleShortBytes = 2 * 1024;
const sampleLongBytes = 16 * 1024;

/** Bits a byte, of 8, from which content looks like noise. Random bytes give 7.99, machine code about 6. */
const noiseBits = 7.7;
/** The same for content that says by its first bytes that it is compressed. */
const noiseBitsOfCompressed = 7;
/** Share of positions that repeat four bytes seen before, from which deflate finds something all the same. */
const repeatShareMin = 1 / 50;

/** Bytes that are looked at first: in noise half of them have their highest bit set, in text hardly any. */
const glanceSizeBytes = 256;

/**
 * Whether compression is likely to make content smaller, from its first piece. Compressed, encrypted and
 * random content is recognized by its first bytes and by looking like noise: all bytes are about equally
 * frequent, and hardly any sequence repeats. Takes under 1 µs for text, 9 µs for 4 KiB of noise and at most 0.15 ms.
 */
export function compressionPays(content: Uint8Array): boolean {
  if (content.length < sampleMinBytes || !looksBinary(content)) return true;
  const limit = beginsCompressed(content) ? noiseBitsOfCompressed : noiseBits;
  const sampleBytes = Math.min(sampleLongBytes, Math.max(sampleShortBytes, content.length >> 3));
  if (!looksLikeNoise(content.subarray(0, sampleBytes), limit)) return true;
  if (content.length < 8 * sampleShortBytes) return false;
  const middle = content.length >> 1;
  return !looksLikeNoise(content.subarray(middle, middle + sampleBytes), limit);
}

function looksBinary(content: Uint8Array): boolean {
  let high = 0;
  for (let index = 0; index < glanceSizeBytes; index += 1) high += (content[index] ?? 0) >> 7;
  return high >= glanceSizeBytes / 4;
}

function looksLikeNoise(sample: Uint8Array, limitBits: number): boolean {
  return entropyBits(sample) >= limitBits && !repeats(sample);
}

/** First bytes of formats that are compressed throughout, as hex digits. */
const compressedFormats: readonly string[] = [
  '1f8b', // gzip
  '504b0304', // zip and all that is made of it
  'fd377a585a00', // xz
  '425a68', // bzip2
  '28b52ffd', // zstd
  '04224d18', // lz4
  '377abcaf271c', // 7z
  '526172211a07', // rar
  '89504e470d0a1a0a', // PNG
  'ffd8ff', // JPEG
  '47494638', // GIF
  '1a45dfa3', // Matroska, WebM
  '4f676753', // Ogg
  '664c6143', // FLAC
  '774f4632', // WOFF2
];

/** Whether content begins like a file of a format that is compressed throughout. */
export function beginsCompressed(content: Uint8Array): boolean {
  const first = Buffer.from(content.subarray(0, 8)).toString('hex');
  return compressedFormats.some((magic) => first.startsWith(magic));
}

/**
 * Order-0 entropy in bits a byte, with the correction of Miller and Madow for samples that are short
 * compared to the 256 values.
 */
function entropyBits(sample: Uint8Array): number {
  const counts = byteCounts.fill(0);
  // The assertions hold by the loops' bounds; a `?? 0` in their place makes the loops half as fast.
  for (let index = 0; index < sample.length; index += 1) {
    const byte = sample[index] as number;
    counts[byte] = (counts[byte] as number) + 1;
  }
  let weighted = 0;
  let values = 0;
  for (let byte = 0; byte < 256; byte += 1) {
    const count = counts[byte] as number;
    if (count === 0) continue;
    values += 1;
    weighted += count < weightedLogs.length ? (weightedLogs[count] as number) : count * Math.log2(count);
  }
  const bits = Math.log2(sample.length) - weighted / sample.length;
  return bits + (values - 1) / (2 * sample.length * Math.LN2);
}

/** `n * log2(n)` of the counts that noise has: 256 logarithms would take a third of a look at 4 KiB. */
const weightedLogs = Float64Array.from({ length: 256 }, (_, count) =>
  count === 0 ? 0 : count * Math.log2(count),
);

const tableBits = 12;

// Used by one call at a time, because calls are synchronous. Clearing them costs less than allocating them.
const byteCounts = new Uint32Array(256);
const wordTable = new Int32Array(1 << tableBits);

/** Whether sequences of four bytes come back often enough within the sample for deflate to find them. */
function repeats(sample: Uint8Array): boolean {
  const seen = wordTable.fill(0);
  const needed = sample.length * repeatShareMin;
  let word = 0;
  let found = 0;
  for (let index = 0; index < sample.length; index += 1) {
    word = (word << 8) | (sample[index] as number);
    const slot = Math.imul(word, 0x9e3779b1) >>> (32 - tableBits);
    if (seen[slot] !== word) seen[slot] = word;
    else if (++found >= needed) return true;
  }
  return false;
}
