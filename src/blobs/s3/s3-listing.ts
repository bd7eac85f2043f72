import type { CompletedPart } from '@aws-sdk/client-s3';
import { throwIfAborted } from '../../core/concurrency.ts';
import { FiletrackerError } from '../../core/errors.ts';
import type { S3Connection } from './s3-connection.ts';

// Lists of what a bucket holds. Where a server leaves out a time, an object or an upload counts as made just now: what is
// swept by its age is then left alone. A part of an upload does not, or no upload of such a server would ever be swept.

export interface FoundObject {
  /** Without the prefix of the connection. */
  readonly key: string;
  readonly sizeBytes: number;
  readonly modifiedMs: number;
}

export interface UnfinishedUpload {
  /** Without the prefix of the connection. */
  readonly key: string;
  readonly uploadId: string;
  readonly initiatedMs: number;
}

/** A part of an upload that is not finished. */
export interface FoundPart extends CompletedPart {
  readonly sizeBytes: number;
  /** 0 where it is not known. */
  readonly modifiedMs: number;
}

/**
 * Every object whose key begins with `start`. Goes on by the server's token, or by the last key where it gives none.
 * @throws FiletrackerError `io` where the server says that there is more and does not give it: a list that ends too
 * early must not be taken for whole.
 */
export async function* listObjects(
  connection: S3Connection,
  start: string,
  signal?: AbortSignal,
): AsyncGenerator<FoundObject, void, void> {
  const { library, client, bucket, prefix } = connection;
  const action = 'list the object store';
  let place: { readonly ContinuationToken?: string; readonly StartAfter?: string } = {};
  for (;;) {
    throwIfAborted(signal, action);
    const command = new library.ListObjectsV2Command({
      Bucket: bucket,
      Prefix: `${prefix}${start}`,
      ...place,
    });
    const page = await connection.run(action, (abortSignal) => client.send(command, { abortSignal }), {
      signal,
    });
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
      throw new FiletrackerError('io', `Cannot ${action}: it does not say where its list goes on`);
    }
    place = next;
  }
}

/** Uploads of keys that begin with `start`; where it is undefined the server is asked for those of the whole bucket. */
export async function* listUploads(
  connection: S3Connection,
  start: string | undefined,
): AsyncGenerator<UnfinishedUpload, void, void> {
  const { library, client, bucket, prefix } = connection;
  let marker: { KeyMarker: string; UploadIdMarker?: string } | undefined;
  for (;;) {
    const command = new library.ListMultipartUploadsCommand({
      Bucket: bucket,
      ...(start !== undefined && { Prefix: `${prefix}${start}` }),
      ...marker,
    });
    const page = await connection.run('list the uploads', (abortSignal) =>
      client.send(command, { abortSignal }),
    );
    for (const { Key, UploadId, Initiated } of page.Uploads ?? []) {
      if (Key === undefined || UploadId === undefined || !Key.startsWith(prefix)) continue;
      const initiatedMs = Initiated?.getTime() ?? Date.now();
      yield { key: Key.slice(prefix.length), uploadId: UploadId, initiatedMs };
    }
    const { NextKeyMarker: key, NextUploadIdMarker: upload } = page;
    if (page.IsTruncated !== true || key === undefined) return;
    // A server that does not move on would be asked for ever.
    if (marker?.KeyMarker === key && marker.UploadIdMarker === upload) return;
    marker = { KeyMarker: key, ...(upload !== undefined && { UploadIdMarker: upload }) };
  }
}

/**
 * The parts of an upload, in their order. Goes by what the server says of more to come: some give the number of the last
 * part as a place to go on from whether there is more or not.
 */
export async function listParts(
  connection: S3Connection,
  key: string,
  uploadId: string,
): Promise<readonly FoundPart[]> {
  const { library, client } = connection;
  const parts: FoundPart[] = [];
  let marker: string | undefined;
  for (;;) {
    const command = new library.ListPartsCommand({
      ...connection.at(key),
      UploadId: uploadId,
      ...(marker !== undefined && { PartNumberMarker: marker }),
    });
    const page = await connection.run('list the parts of an upload', (abortSignal) =>
      client.send(command, { abortSignal }),
    );
    for (const { PartNumber, ETag, Size, LastModified } of page.Parts ?? []) {
      parts.push({ PartNumber, ETag, sizeBytes: Size ?? 0, modifiedMs: LastModified?.getTime() ?? 0 });
    }
    const { NextPartNumberMarker: next } = page;
    if (page.IsTruncated !== true || next === undefined || next === marker) return parts;
    marker = next;
  }
}
