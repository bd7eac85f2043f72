import type { CompletedPart } from '@aws-sdk/client-s3';
import { throwIfAborted } from '../../core/concurrency.ts';
import { FiletrackerError, isFiletrackerError } from '../../core/errors.ts';
import { isAbsence, isRefusal, type S3Connection } from './s3-connection.ts';

// Objects and unfinished uploads of a bucket. If a server leaves out a time, an object or an upload counts as made just
// now, so that a sweep by age leaves it alone. A part of an upload does not, or no upload of such a server would ever be swept.

export interface FoundObject {
  /** Without the prefix of the connection, as all keys here. */
  readonly key: string;
  readonly sizeBytes: number;
  readonly modifiedMs: number;
}

export interface UnfinishedUpload {
  readonly key: string;
  readonly uploadId: string;
  readonly initiatedMs: number;
}

export interface UploadedPart extends CompletedPart {
  readonly sizeBytes: number;
  /** 0 if unknown. */
  readonly modifiedMs: number;
}

/**
 * Size of an object; `undefined` if there is none.
 * @throws FiletrackerError `unavailable` if there is no such bucket, among others.
 */
export async function sizeOf(connection: S3Connection, key: string): Promise<number | undefined> {
  const { library } = connection;
  try {
    const head = new library.HeadObjectCommand(connection.at(key));
    const { ContentLength } = await connection.send('look at a blob', head);
    const size = ContentLength ?? (await listedSizeOf(connection, key));
    if (size !== undefined) return size;
  } catch (error) {
    if (!isAbsence(error)) throw error;
    // A response to HEAD has no body to say what is absent; only a list shows that the bucket is missing.
    await listedSizeOf(connection, key);
    return undefined;
  }
  throw new FiletrackerError('unavailable', 'Cannot look at a blob: the object store does not say its size');
}

/** The same from a list, for servers that leave Content-Length out. */
async function listedSizeOf(connection: S3Connection, key: string): Promise<number | undefined> {
  const { Bucket, Key } = connection.at(key);
  const command = new connection.library.ListObjectsV2Command({ Bucket, Prefix: Key, MaxKeys: 1 });
  const page = await connection.send('look at a blob', command);
  return page.Contents?.find((found) => found.Key === Key)?.Size;
}

/** Removes an object; absence is no error. */
export async function removeObject(
  connection: S3Connection,
  key: string,
  action: 'remove a blob' | 'remove a probe',
): Promise<void> {
  const command = new connection.library.DeleteObjectCommand(connection.at(key));
  await ignoringAbsence(connection.send(action, command));
}

/** Removes the parts of an upload; absence is no error. */
export async function abortUpload(connection: S3Connection, key: string, uploadId: string): Promise<void> {
  const at = { ...connection.at(key), UploadId: uploadId };
  const command = new connection.library.AbortMultipartUploadCommand(at);
  await ignoringAbsence(connection.send('discard an upload', command));
}

async function ignoringAbsence(sent: Promise<unknown>): Promise<void> {
  try {
    await sent;
  } catch (error) {
    if (!isAbsence(error)) throw error;
  }
}

/**
 * Makes an object of the parts of an upload, and checks the result in any case: not every server reports every failure.
 * If the response to an earlier try was lost, the upload does not exist any more, for which servers have errors of their
 * own, and the object does. No other upload has its key, so an object of its size is what it has become.
 */
export async function completeUpload(
  connection: S3Connection,
  at: { readonly key: string; readonly uploadId: string },
  parts: readonly CompletedPart[],
  sizeBytes: number,
): Promise<void> {
  const { key, uploadId } = at;
  const command = new connection.library.CompleteMultipartUploadCommand({
    ...connection.at(key),
    UploadId: uploadId,
    MultipartUpload: { Parts: [...parts] },
  });
  let refusal: FiletrackerError | undefined;
  try {
    await connection.send('place a blob', command, { slow: true });
  } catch (error) {
    // Without a response the state is unknown, and no time is left to ask.
    if (!isFiletrackerError(error) || !isRefusal(error)) throw error;
    refusal = error;
  }
  const found = await sizeOf(connection, key);
  if (found === sizeBytes) return;
  if (found !== undefined) {
    throw new FiletrackerError('io', `Cannot place a blob: ${found} of its ${sizeBytes} bytes arrived`);
  }
  if (refusal === undefined) {
    const text = 'Cannot place a blob: the object store accepted it but does not have it';
    throw new FiletrackerError('unavailable', text);
  }
  if (!isAbsence(refusal)) throw refusal;
  throw new FiletrackerError('not-found', 'Cannot place the upload: it is gone', { cause: refusal });
}

/**
 * Every object whose key begins with `start`. Continues by the server's token, or by the last key if there is none.
 * @throws FiletrackerError `io` if the server reports a further page but not where it begins: a list that ends too
 * early must not be taken for complete.
 */
export async function* listObjects(
  connection: S3Connection,
  start: string,
  signal?: AbortSignal,
): AsyncGenerator<FoundObject, void, void> {
  const { library, bucket, prefix } = connection;
  const action = 'list the object store';
  let place: { readonly ContinuationToken?: string; readonly StartAfter?: string } = {};
  for (;;) {
    throwIfAborted(signal, action);
    const from = { Bucket: bucket, Prefix: `${prefix}${start}`, ...place };
    const page = await connection.send(action, new library.ListObjectsV2Command(from), { signal });
    for (const { Key, Size, LastModified } of page.Contents ?? []) {
      if (Key?.startsWith(prefix) !== true) continue;
      const modifiedMs = LastModified?.getTime() ?? Date.now();
      yield { key: Key.slice(prefix.length), sizeBytes: Size ?? 0, modifiedMs };
    }
    const { NextContinuationToken: token, IsTruncated: more = token !== undefined } = page;
    if (!more) return;
    const last = page.Contents?.at(-1)?.Key;
    const next = token !== undefined ? { ContinuationToken: token } : last && { StartAfter: last };
    if (!next || JSON.stringify(next) === JSON.stringify(place)) {
      throw new FiletrackerError(
        'io',
        `Cannot ${action}: the object store sent a page of the list without a usable continuation token`,
      );
    }
    place = next;
  }
}

/** Uploads of keys that begin with `start`; if `undefined`, those of the whole bucket. */
export async function* listUploads(
  connection: S3Connection,
  start: string | undefined,
): AsyncGenerator<UnfinishedUpload, void, void> {
  const { library, bucket, prefix } = connection;
  let marker: { KeyMarker: string; UploadIdMarker?: string } | undefined;
  for (;;) {
    const command = new library.ListMultipartUploadsCommand({
      Bucket: bucket,
      ...(start !== undefined && { Prefix: `${prefix}${start}` }),
      ...marker,
    });
    const page = await connection.send('list the uploads', command);
    for (const { Key, UploadId, Initiated } of page.Uploads ?? []) {
      if (Key === undefined || UploadId === undefined || !Key.startsWith(prefix)) continue;
      const initiatedMs = Initiated?.getTime() ?? Date.now();
      yield { key: Key.slice(prefix.length), uploadId: UploadId, initiatedMs };
    }
    const { NextKeyMarker: key, NextUploadIdMarker: upload } = page;
    if (page.IsTruncated !== true || key === undefined) return;
    // A server that does not advance would be asked forever.
    if (marker?.KeyMarker === key && marker.UploadIdMarker === upload) return;
    marker = { KeyMarker: key, ...(upload !== undefined && { UploadIdMarker: upload }) };
  }
}

/**
 * The parts of an upload, in their order. Trusts `IsTruncated`: some servers send the number of the last part as a place
 * to continue even if there is no more.
 */
export async function listParts(
  connection: S3Connection,
  key: string,
  uploadId: string,
): Promise<readonly UploadedPart[]> {
  const parts: UploadedPart[] = [];
  let marker: string | undefined;
  for (;;) {
    const command = new connection.library.ListPartsCommand({
      ...connection.at(key),
      UploadId: uploadId,
      ...(marker !== undefined && { PartNumberMarker: marker }),
    });
    const page = await connection.send('list the parts of an upload', command);
    for (const { PartNumber, ETag, Size, LastModified } of page.Parts ?? []) {
      parts.push({ PartNumber, ETag, sizeBytes: Size ?? 0, modifiedMs: LastModified?.getTime() ?? 0 });
    }
    const { NextPartNumberMarker: next } = page;
    if (page.IsTruncated !== true || next === undefined || next === marker) return parts;
    marker = next;
  }
}
