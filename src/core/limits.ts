// Bounds that several files share, and the defaults of flags. A bound that concerns one file is at the top of that file.

const kib = 1024;
const mib = 1024 * kib;
const gib = 1024 * mib;

/** Bytes of a name, UTF-8 encoded. Source: the protocol. */
export const nameSizeMaxBytes = 1024;
/** Bytes of one component of a name: the limit of file systems, so that every tree can be written to disk. */
export const componentSizeMaxBytes = 255;

/** Bytes of an error text in a header, a body, a log line or on a terminal. */
export const errorTextSizeMaxBytes = 1 * kib;

/** Stored size up to which a blob is kept in its journal record instead of a file of its own. */
export const inlineSizeMaxBytes = 16 * kib;

/** Bodies up to this size are collected in memory, verified, and only then encoded. */
export const bufferedBodyMaxBytes = 1 * mib;
/** The same for gzip bodies of announced size, which are stored as they come, and for what they unpack to. */
export const bufferedGzipBodyMaxBytes = 4 * mib;
/** Memory of all bodies that are being collected; beyond it bodies go through a file. */
export const bufferedBodiesTotalMaxBytes = 64 * mib;
/** Bodies up to this size are digested and decoded on the main thread: about 50 microseconds at the most. */
export const mainThreadBodyMaxBytes = 16 * kib;

/** Largest file, before compression, unless a flag says otherwise. */
export const fileSizeMaxBytes = 1024 * gib;

/** Maximum ratio of gzip decoding, beyond the first `decodingRatioFreeBytes` of output: text reaches 10, logs 50, zeros 1,032. */
export const decodingRatioMax = 256;
/** Output that the ratio does not bound, so that files of zeros are accepted up to this size. */
export const decodingRatioFreeBytes = 1 * gib;

/** Compression of plain bodies, from 1 (fast) to 9 (small). */
export const compressionLevel = 6;

/** Size of the pieces in which bodies are read, hashed and written. */
export const chunkSizeBytes = 64 * kib;

/** Size at which a journal segment is closed and the next one starts. */
export const segmentSizeBytes = 64 * mib;
/** Maximum changes and bytes that one sync makes durable. */
export const groupChangesMax = 512;
export const groupSizeMaxBytes = 4 * mib;
/** Changes waiting for the journal; more are refused as busy. */
export const pendingChangesMax = 16_384;

/** Memory for recently read blobs, per process. */
export const readCacheSizeBytes = 64 * mib;
/** Largest blob that is read whole and kept there; larger ones are streamed. */
export const readCacheItemMaxBytes = 256 * kib;
/** Memory of an item besides its bytes: its key, the list, the map. */
export const readCacheItemOverheadBytes = 300;

/** Bytes that may be decompressed and skipped without a turn: some milliseconds of a thread. */
export const seekFreeBytes = 1 * mib;
/** Concurrent seeks in compressed blobs; a process has four threads. */
export const seeksMax = 2;
/** Waiting seeks of one sender; more are refused. */
export const seeksWaitingMax = 32;

/** Look-ups of a reader whose blob is moved or collected before it is opened. */
export const lookUpsMax = 5;

/** How long a removal is remembered, so that a late retry of an earlier PUT does not restore the removed file. */
export const removalMemoryMs = 30 * 24 * 3_600_000;
/** How long unreferenced blobs are kept, unless a flag says otherwise. */
export const collectionGraceMs = 3_600_000;
/** Pause between two runs of the garbage collector. */
export const collectionIntervalMs = 60 * 1000;
/** Bytes a second that verification reads, unless a flag says otherwise. */
export const verifyBytesPerSecond = 32 * mib;
/** Blobs collected in one change. */
export const collectionBatchBlobs = 256;
/** Time after its last write when an upload counts as abandoned by a server that has ended. */
export const stagedLifetimeMs = 24 * 60 * 60 * 1000;

/** Names in one batch of a list; bounds the time of one turn to about a millisecond. */
export const listBatchNames = 512;

/** Maximum open connections. An idle one takes about 20 KiB of memory, so that these take at most 200 MiB. */
export const connectionsMax = 10_000;

/** Bytes of a request line and its headers; a name of 1,024 bytes takes three times as many when encoded. */
export const headersSizeMaxBytes = 16 * kib;
/** Time for a request's headers to arrive. */
export const headersTimeoutMs = 20_000;
/** Time without a byte after which a request body or a response is aborted. */
export const stallTimeoutMs = 30_000;
/** Minimum rate of a body over this time, in bytes per second. The slowest mobile line has three times that. */
export const bodyBytesPerSecondMin = 1 * kib;
/** Time that a connection is kept open between requests. */
export const idleTimeoutMs = 75_000;
/** Requests that wait for the previous one on one connection; more end the connection. */
export const waitingRequestsMax = 1024;
/** The same for all connections of a process, besides the first of each; one takes about 6 KiB and its headers. */
export const waitingRequestsTotalMax = 8192;
/** Number of waiting requests at which reading from a connection pauses. */
export const waitingRequestsPauseAt = 16;
/** Rest of a refused body that is read and discarded, so that the connection can stay open. */
export const refusedBodyDrainMaxBytes = 256 * kib;
/** How long a connection stays open for the sender of a longer refused body to read the response. */
export const lingerTimeMs = 2_000;
/** Bytes discarded in this time. */
export const lingerSizeMaxBytes = 64 * mib;
/** Time for running requests when the server stops. */
export const shutdownTimeoutMs = 30_000;
/** Time for the first request of a new connection when the server stops. */
export const firstRequestTimeMs = 1000;

/** Maximum concurrent uploads of one store; each takes at most a few hundred KiB. */
export const uploadsMax = 1024;
/** Maximum concurrent lists of one store; each takes a batch of names. */
export const listsMax = 256;
/** Maximum age of the measured free space. */
export const freeSpaceAgeMaxMs = 1_000;
/** Bytes of the disk that uploads leave free: this many, or this part of the disk if that is less. */
export const freeSpaceMinBytes = 1 * gib;
export const freeSpaceMinPart = 0.01;
/** Tokens and addresses whose rates are kept; 8 bytes each; a power of 2. */
export const rateHoldersMax = 16_384;

/** Items of one kind that a maintenance report lists; its counts are complete. */
export const reportItemsMax = 10_000;
