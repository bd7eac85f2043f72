import { put } from './schema-changes.ts';

/**
 * Removals that only count for puts that repeat an earlier request. `p_removals_since` below zero is such a put: less the
 * time at which the request was first sent, in milliseconds since 1970. A removal of its version or a newer one since then
 * stays in effect. Servers of the releases before give a time above zero, and keep to what they know.
 */
export const removals = put.replace('CREATE FUNCTION', 'CREATE OR REPLACE FUNCTION').replace(
  'r.version > p_version AND r.time_ms > p_removals_since;',
  `CASE WHEN p_removals_since < 0
        THEN r.version >= p_version AND r.time_ms >= -p_removals_since
        ELSE r.version > p_version AND r.time_ms > p_removals_since END;`,
);
