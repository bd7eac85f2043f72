/** A mapping takes whole pages, and none of the systems we run on has smaller ones. */
const pageSizeBytes = 4096;
const protectReadWrite = 0x1 | 0x2;
const mapShared = 0x1;

type MapFile = (descriptor: number, sizeBytes: number) => ArrayBuffer;

let mapFile: Promise<MapFile> | undefined;

/** Node has no mmap(2). The library that calls it is loaded when the first file is mapped, not before. */
function loadMapFile(): Promise<MapFile> {
  mapFile ??= loadMmap();
  return mapFile;
}

async function loadMmap(): Promise<MapFile> {
  const { default: koffi } = await import('koffi');
  const mmap = koffi
    .load(null)
    .func('void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)') as (
    address: null,
    length: number,
    protection: number,
    flags: number,
    descriptor: number,
    offset: number,
  ) => unknown;
  return (descriptor, sizeBytes) => {
    const address = mmap(null, sizeBytes, protectReadWrite, mapShared, descriptor, 0);
    // MAP_FAILED is -1, which no mapping begins at.
    if (koffi.address(address) === 2n ** 64n - 1n) {
      throw new Error(`mmap answered with errno ${koffi.errno()}`);
    }
    return koffi.view(address, sizeBytes);
  };
}

/**
 * The bytes of an open file as memory that all processes share which map it. The file must have its place on the
 * disk already (be written, not only sized), so that a full disk can't fail a later access. The mapping outlives
 * the descriptor and lasts as long as the process: there is no unmapping under a reader.
 */
export async function mapDescriptor(descriptor: number, sizeBytes: number): Promise<ArrayBuffer> {
  const map = await loadMapFile();
  return map(descriptor, Math.ceil(sizeBytes / pageSizeBytes) * pageSizeBytes);
}
