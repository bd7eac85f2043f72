/**
 * Who may use the store, for all its servers.
 *
 * - `token`: as tokens.json holds them: names, rights and the SHA-256 of secrets, never a secret.
 * - `token_state`: its one row is there from the first token on and never goes, so that a store whose tokens are lost
 *   can be told from one that never had any. `change_number` grows with every change of `token`, whoever makes it:
 *   a server that has seen the number has seen the tokens.
 */
export const tokens = `
CREATE TABLE $schema.token (
  name text COLLATE "C" PRIMARY KEY,
  id text NOT NULL,
  secret_hash text NOT NULL,
  prefixes text[] NOT NULL,
  rights text[] NOT NULL,
  created_ms bigint NOT NULL,
  expires_ms bigint
);

CREATE TABLE $schema.token_state (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  change_number bigint NOT NULL DEFAULT 1,
  -- How many tokens the program that changes them left: where there is none of them any more they are lost.
  tokens bigint NOT NULL DEFAULT 0
);

CREATE FUNCTION $schema.note_token_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO $schema.token_state AS s DEFAULT VALUES
    ON CONFLICT (only_row) DO UPDATE SET change_number = s.change_number + 1;
  RETURN NULL;
END $$;

CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON $schema.token
  FOR EACH STATEMENT EXECUTE FUNCTION $schema.note_token_change();
`;
