import { namePrefix, type Statement } from './connections.ts';

export type Statements = ReturnType<typeof statementsFor>;

const blobColumns = 'digest, encoding, logical_size, stored_size, object_key, reference_count, damaged';

function statement(name: string, text: string): Statement {
  return { name: `${namePrefix}${name}`, text };
}

/** A statement whose text differs from that of an earlier release, which may use the same connections of a pooler. */
function renewed(name: string, text: string): Statement {
  return { ...statement(`${name}_2`, text), operation: name };
}

/**
 * The time in milliseconds since 1970: the parameter, which tests set, else the clock of the database. Servers stamp
 * nothing by clocks of their own, which may differ by days.
 */
function nowOf(parameter: string): string {
  return `coalesce(${parameter}::bigint, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)`;
}

/** The time that was so many milliseconds ago, as `put` takes it: see schema-removals.ts. */
function removalsSince(agoMs: string, now: string): string {
  return `coalesce(${agoMs}::bigint - ${nowOf(now)}, 9007199254740991)`;
}

function changesOf(schema: string) {
  // What a put may rely on comes with its answer, as it was before the put.
  const known = `(SELECT object_key FROM ${schema}.blob WHERE digest = $4) AS known_key,
    (SELECT stored_size FROM ${schema}.blob WHERE digest = $4) AS known_size`;
  return {
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
  } as const;
}

function pinsOf(schema: string) {
  return {
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

/** The statements of one schema. Each name stands for one text for ever: connections prepare by name. */
export function statementsFor(schema: string) {
  const entries = `${schema}.entry e JOIN ${schema}.blob b USING (digest)`;
  const entryColumns = 'e.name, e.version, e.digest, b.encoding, b.logical_size, b.stored_size';
  return {
    find: statement(
      'find',
      `SELECT ${entryColumns}, b.bytes, b.object_key, b.damaged FROM ${entries} WHERE e.name = $1`,
    ),
    findBlob: statement('find_blob', `SELECT ${blobColumns} FROM ${schema}.blob WHERE digest = $1`),
    readBlob: statement('read_blob', `SELECT bytes FROM ${schema}.blob WHERE digest = $1`),
    kindOfDirectory: statement(
      'kind_of_directory',
      `SELECT CASE
        WHEN EXISTS (SELECT 1 FROM ${schema}.entry WHERE name = $1) THEN 'file'
        WHEN EXISTS (SELECT 1 FROM ${schema}.entry WHERE name > $2 AND name < $3) THEN 'directory'
        ELSE 'absent' END AS kind`,
    ),
    ...changesOf(schema),
    collect: renewed('collect', `SELECT ${blobColumns} FROM ${schema}.collect($1,$2,${nowOf('$3')})`),
    ...pinsOf(schema),
    mark: renewed('mark', `SELECT ${schema}.mark($1,$2,${nowOf('$3')})`),
    addBlob: renewed('add_blob', `SELECT ${schema}.add_blob($1,$2,$3,$4,$5,$6,${nowOf('$7')}) AS key`),
    doom: renewed('doom', `SELECT doom AS key FROM ${schema}.doom($1,${nowOf('$2')})`),
    strays: statement(
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
    now: statement('now', `SELECT ${nowOf('$1')} AS now_ms`),
    forgetRemovals: statement('forget_removals', `DELETE FROM ${schema}.removal WHERE time_ms < $1`),
    forgetObjects: statement('forget_objects', `DELETE FROM ${schema}.object WHERE removed_ms < $1`),
    listUnreferenced: statement(
      'list_unreferenced',
      `SELECT digest FROM ${schema}.unreferenced WHERE since_ms < $1 ORDER BY since_ms, digest LIMIT $2`,
    ),
    stats: statement(
      'stats',
      `SELECT sum(entries)::bigint AS entries, sum(blobs)::bigint AS blobs,
        sum(logical_bytes)::bigint AS logical_bytes, sum(stored_bytes)::bigint AS stored_bytes,
        sum(unreferenced_blobs)::bigint AS unreferenced_blobs,
        pg_total_relation_size('${schema}.journal')::bigint AS journal_bytes FROM ${schema}.counter`,
    ),
    // A change that cannot be made shows only when one is made: this one waits for the disk and leaves nothing.
    probe: statement('probe', `UPDATE ${schema}.counter SET entries = entries WHERE shard = 63`),
    // Pages of what is after $1. A cutoff is left to the receiver, so that a page costs the same whatever it shows.
    listNames: (limit: number): string =>
      `SELECT name, version FROM ${schema}.entry WHERE name > $1 AND name < $2 ORDER BY name LIMIT ${limit}`,
    listEntries: (limit: number): string =>
      `SELECT ${entryColumns} FROM (
        SELECT * FROM ${schema}.entry WHERE name > $1 AND name < $2 ORDER BY name LIMIT ${limit}
      ) e JOIN ${schema}.blob b USING (digest) ORDER BY e.name`,
    listBlobs: (limit: number): string =>
      `SELECT ${blobColumns} FROM ${schema}.blob WHERE digest > $1 ORDER BY digest LIMIT ${limit}`,
  } as const;
}
