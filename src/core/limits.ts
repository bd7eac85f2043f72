// Every bound of the store, in one place. What a flag can change is a default here.

const kib = 1024;
const mib = 1024 * kib;
const gib = 1024 * mib;

/** Bytes of a name, UTF-8 encoded. Source: the protocol. */
export const nameSizeMaxBytes = 1024;
/** Bytes of one component of a name: what file systems take, so that every tree can be written out. */
export const componentSizeMaxBytes = 255;

/** Bytes of any text of an error, in a header, a body, a line of a log or a terminal. */
export const errorTextSizeMaxBytes = 1 * kib;

/** Stored size up to which a blob lies in its journal record instead of a file of its own. */
export const inlineSizeMaxBytes = 16 * kib;

/** Bodies up to this size are collected in memory, verified, and only then encoded. */
export const bufferedBodyMaxBytes = 1 * mib;
/** Memory that all bodies being collected may take together; beyond it bodies go through a file. */
export const bufferedBodiesTotalMaxBytes = 64 * mib;
/** Bodies up to this size are digested and decoded on the main thread: about 50 microseconds at the most. */
export const mainThreadBodyMaxBytes = 16 * kib;

/** Largest file, before compression, unless a flag says otherwise. */
export const fileSizeMaxBytes = 1024 * gib;

/**
 * Most bytes that may come out of a gzip body for each that went in, once `decodingRatioFreeBytes` have come
 * out: text reaches 10, logs 50, zeros 1,032.
 */
export const decodingRatioMax = 256;
/** Output that is not held against the ratio, so that files of zeros are taken up to this size. */
export const decodingRatioFreeBytes = 1 * gib;

/** How hard plain bodies are compressed, from 1 (fast) to 9 (small). */
export const compressionLevel = 6;

/** Piece in which bodies are read, hashed and written. */
export const chunkSizeBytes = 64 * kib;

/** Size at which a journal segment is closed and the next one begun. */
export const segmentSizeBytes = 64 * mib;
/** Changes and bytes that one sync makes durable together, at the most. */
export const groupChangesMax = 512;
export const groupSizeMaxBytes = 4 * mib;
/** Changes waiting for the journal; more are refused as busy. */
export const pendingChangesMax = 16_384;

/** Contents kept in memory for reading, by process. */
export const readCacheSizeBytes = 64 * mib;
/** Largest content that is read whole and kept there; what is larger streams. */
export const readCacheItemMaxBytes = 256 * kib;
/** Memory that an item takes beside its bytes: its key, the list, the map. */
export const readCacheItemOverheadBytes = 300;

/** Bytes of a compressed content that are unpacked for nothing without a turn: some milliseconds of a thread. */
export const seekFreeBytes = 1 * mib;
/** Contents that are unpacked at once up to where a range begins, of the four threads of a process. */
export const seeksMax = 2;
/** Requests of one sender that wait for that; more are refused. */
export const seeksWaitingMax = 32;

/** Look-ups that a reader makes when the bytes it was shown are gone before it has opened them. */
export const lookUpsMax = 5;

/** How long a removal is remembered, so that a late repeat of an earlier put does not bring back what was removed. */
export const removalMemoryMs = 30 * 24 * 3_600_000;
/** Time that a blob stays after its last name is gone, unless a flag says otherwise. */
export const collectionGraceMs = 3_600_000;
/** Pause between two runs of the garbage collector. */
export const collectionIntervalMs = 60 * 1000;
/** Bytes a second that verification reads, unless a flag says otherwise. */
export const verifyBytesPerSecond = 32 * mib;
/** Blobs that are collected in one change. */
export const collectionBatchBlobs = 256;
/** Time after its last write at which an upload is taken for abandoned by a server that is gone. */
export const stagedLifetimeMs = 24 * 60 * 60 * 1000;

/** Names handed over in one batch of a list; bounds the time of one turn to about a millisecond. */
export const listBatchNames = 512;

/**
 * Connections that a server holds at once. One that is idle takes about 20 KiB of memory, so that this many
 * take 200 MiB at the most.
 */
export const connectionsMax = 10_000;

/** Bytes of a request line and its headers; a name of 1,024 bytes takes three times that when encoded. */
export const headersSizeMaxBytes = 16 * kib;
/** Time for a request's headers to arrive. */
export const headersTimeoutMs = 20_000;
/** Time without a byte after which a body that comes, or an answer that goes out, is given up. */
export const stallTimeoutMs = 30_000;
/**
 * Bytes a second that a body must make, over the time just named: a byte now and then would keep it from passing.
 * The slowest mobile line makes three times that.
 */
export const bodyBytesPerSecondMin = 1 * kib;
/** Time that a connection is kept open between requests. */
export const idleTimeoutMs = 75_000;
/** Requests that wait for the one before them, on one connection; more end it. */
export const waitingRequestsMax = 1024;
/** The same of all connections of a process, beside the first one of each; one takes about 6 KiB, and its headers. */
export const waitingRequestsTotalMax = 8192;
/** Requests waiting on one connection from which on no more are read from it. */
export const waitingRequestsPauseAt = 16;
/** Rest of a refused body that is read and thrown away, so that the connection can go on. */
export const refusedBodyDrainMaxBytes = 256 * kib;
/** How long a connection is held for a sender of a longer refused body to read the answer. */
export const lingerTimeMs = 2_000;
/** Bytes thrown away meanwhile. */
export const lingerSizeMaxBytes = 64 * mib;
/** Time that running requests are given when the server stops. */
export const shutdownTimeoutMs = 30_000;
/** Time that a new connection has to bring its first request when the server stops. */
export const firstRequestTimeMs = 1000;

/** Uploads under way at once in one store; each holds a few hundred KiB at the most. */
export const uploadsMax = 1024;
/** Lists under way at once in one store; each holds a batch of names. */
export const listsMax = 256;
/** How old the figure of the free space may be. */
export const freeSpaceAgeMaxMs = 1_000;
/** Bytes that stay free on the disk: this much, or this part of the disk if that is less. */
export const freeSpaceMinBytes = 1 * gib;
export const freeSpaceMinPart = 0.01;
/** Tokens and addresses whose rates are remembered; 8 bytes each, and a power of 2. */
export const rateHoldersMax = 16_384;

/** Items of a kind that a report of maintenance lists; its counts go on. */
export const reportItemsMax = 10_000;
