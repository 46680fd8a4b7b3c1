-- The key of each data subject, wrapped by the key-encryption key. Row '' is the app's own. A row stays
-- when its key is destroyed, so that the key is never made anew.
CREATE TABLE annals.subject_key (
    data_subject text COLLATE "C" CONSTRAINT subject_key_pkey PRIMARY KEY,
    wrapped_key  bytea,
    created_at   timestamptz NOT NULL DEFAULT now(),
    destroyed_at timestamptz,
    CONSTRAINT subject_key_destroyed_or_there CHECK ((wrapped_key IS NULL) = (destroyed_at IS NOT NULL))
);

GRANT SELECT, INSERT ON annals.subject_key TO annals_command;
GRANT SELECT, INSERT, UPDATE ON annals.subject_key TO annals_process; -- erasure, rewrapping
GRANT SELECT ON annals.subject_key TO annals_projector, annals_query, annals_audit;
