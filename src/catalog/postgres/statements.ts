import { namePrefix, type Statement } from './connections.ts';

export type Statements = ReturnType<typeof statementsFor>;

const blobColumns = 'digest, encoding, logical_size, stored_size, object_key, reference_count, damaged';

function statement(name: string, text: string): Statement {
  return { name: `${namePrefix}${name}`, text };
}

/** A statement whose text differs from that of an earlier release, which may share the connections of a pooler. */
function renewed(name: string, text: string): Statement {
  return { ...statement(`${name}_2`, text), operation: name };
}

/**
 * The time in milliseconds since 1970: the parameter, which tests set, else the clock of the database. The clocks of
 * servers, which may differ by days, stamp nothing.
 */
function nowOf(parameter: string): string {
  return `coalesce(${parameter}::bigint, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)`;
}

/** The time `agoMs` milliseconds ago, in the form in which `put` takes it: see `removals` in schema/changes.ts. */
function removalsSince(agoMs: string, now: string): string {
  return `coalesce(${agoMs}::bigint - ${nowOf(now)}, 9007199254740991)`;
}

/** Statements on entries and removals. */
function entryStatements(schema: string) {
  const columns = 'e.name, e.version, e.digest, b.encoding, b.logical_size, b.stored_size';
  // The blob that a put may rely on, as it was before the put.
  const known = `(SELECT object_key FROM ${schema}.blob WHERE digest = $4) AS known_key,
    (SELECT stored_size FROM ${schema}.blob WHERE digest = $4) AS known_size`;
  return {
    find: statement(
      'find',
      `SELECT ${columns}, b.bytes, b.object_key, b.damaged FROM ${schema}.entry e JOIN ${schema}.blob b USING (digest) WHERE e.name = $1`,
    ),
    kindOfDirectory: statement(
      'kind_of_directory',
      `SELECT CASE
        WHEN EXISTS (SELECT 1 FROM ${schema}.entry WHERE name = $1) THEN 'file'
        WHEN EXISTS (SELECT 1 FROM ${schema}.entry WHERE name > $2 AND name < $3) THEN 'directory'
        ELSE 'absent' END AS kind`,
    ),
    // Pages of what follows $1. A cutoff is left to the caller, so that a page costs the same whatever is shown of it.
    listNames: (limit: number): string =>
      `SELECT name, version FROM ${schema}.entry WHERE name > $1 AND name < $2 ORDER BY name LIMIT ${limit}`,
    listEntries: (limit: number): string =>
      `SELECT ${columns} FROM (
        SELECT * FROM ${schema}.entry WHERE name > $1 AND name < $2 ORDER BY name LIMIT ${limit}
      ) e JOIN ${schema}.blob b USING (digest) ORDER BY e.name`,
    put: renewed(
      'put',
      `SELECT p.*, ${known} FROM ${schema}.put($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,${nowOf('$12')},${removalsSince('$13', '$12')}) p`,
    ),
    putUnmodified: renewed(
      'put_unmodified',
      `SELECT p.*, ${known} FROM ${schema}.put_unmodified($1,$2,$3,$4,$5,$6,$7,$8,$9,${nowOf('$10')},${removalsSince('$11', '$10')},$12) p`,
    ),
    remove: renewed('remove', `SELECT * FROM ${schema}.remove($1,$2,$3,$4,${nowOf('$5')})`),
    removeUnmodified: renewed(
      'remove_unmodified',
      `SELECT * FROM ${schema}.remove_unmodified($1,$2,${nowOf('$3')},$4)`,
    ),
    forgetRemovals: statement('forget_removals', `DELETE FROM ${schema}.removal WHERE time_ms < $1`),
  } as const;
}

/** Statements on blobs and their pins. */
function blobStatements(schema: string) {
  return {
    findBlob: statement('find_blob', `SELECT ${blobColumns} FROM ${schema}.blob WHERE digest = $1`),
    readBlob: statement('read_blob', `SELECT bytes FROM ${schema}.blob WHERE digest = $1`),
    listBlobs: (limit: number): string =>
      `SELECT ${blobColumns} FROM ${schema}.blob WHERE digest > $1 ORDER BY digest LIMIT ${limit}`,
    listUnreferenced: statement(
      'list_unreferenced',
      `SELECT digest FROM ${schema}.unreferenced WHERE since_ms < $1 ORDER BY since_ms, digest LIMIT $2`,
    ),
    collect: renewed('collect', `SELECT ${blobColumns} FROM ${schema}.collect($1,$2,${nowOf('$3')})`),
    mark: renewed('mark', `SELECT ${schema}.mark($1,$2,${nowOf('$3')})`),
    addBlob: renewed('add_blob', `SELECT ${schema}.add_blob($1,$2,$3,$4,$5,$6,${nowOf('$7')}) AS key`),
    pin: statement(
      'pin',
      `SELECT ${blobColumns} FROM ${schema}.pin($1,$2,make_interval(secs => $3::double precision / 1000))`,
    ),
    renewPin: statement(
      'renew_pin',
      `UPDATE ${schema}.pin SET expires_at = clock_timestamp() + make_interval(secs => $3::double precision / 1000)
        WHERE digest = $1 AND pin_id = $2`,
    ),
    release: statement('release', `DELETE FROM ${schema}.pin WHERE digest = $1 AND pin_id = $2`),
    endPins: statement('end_pins', `DELETE FROM ${schema}.pin WHERE expires_at < now() - interval '1 hour'`),
  } as const;
}

/** Statements on the objects of the blob store. */
function objectStatements(schema: string) {
  return {
    doom: renewed('doom', `SELECT doom AS key FROM ${schema}.doom($1,${nowOf('$2')})`),
    orphans: statement(
      'strays',
      `SELECT found.key FROM unnest($1::text[]) AS found(key) WHERE NOT EXISTS (
        SELECT 1 FROM ${schema}.object o WHERE o.key = found.key AND o.doomed_ms IS NULL)`,
    ),
    objectsToRemove: statement(
      'objects_to_remove',
      `SELECT key FROM ${schema}.object WHERE doomed_ms < $1 AND removed_ms IS NULL ORDER BY doomed_ms LIMIT $2`,
    ),
    objectsRemoved: renewed(
      'objects_removed',
      `UPDATE ${schema}.object SET removed_ms = ${nowOf('$2')}
        WHERE key = ANY ($1) AND doomed_ms IS NOT NULL AND removed_ms IS NULL`,
    ),
    forgetObjects: statement('forget_objects', `DELETE FROM ${schema}.object WHERE removed_ms < $1`),
  } as const;
}

/** The statements of one schema. A name stands for one text for ever: connections prepare by name. */
export function statementsFor(schema: string) {
  return {
    ...entryStatements(schema),
    ...blobStatements(schema),
    ...objectStatements(schema),
    now: statement('now', `SELECT ${nowOf('$1')} AS now_ms`),
    stats: statement(
      'stats',
      `SELECT sum(entries)::bigint AS entries, sum(blobs)::bigint AS blobs,
        sum(logical_bytes)::bigint AS logical_bytes, sum(stored_bytes)::bigint AS stored_bytes,
        sum(unreferenced_blobs)::bigint AS unreferenced_blobs,
        pg_total_relation_size('${schema}.journal')::bigint AS journal_bytes FROM ${schema}.counter`,
    ),
    // Only a change shows whether changes can be made: this one waits for the disk and alters nothing.
    probe: statement('probe', `UPDATE ${schema}.counter SET entries = entries WHERE shard = 63`),
  } as const;
}
