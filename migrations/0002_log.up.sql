-- The log: the journal, its head, its identity; snapshots of streams; how far each reader has read.
-- All keys compare by bytes (COLLATE "C"): faster, and never changed by an upgrade of the system's locales.

-- Accepted records, readable by stream. With the Postgres log this table is the log. A column is null
-- where a kind of record lacks the header. Fixed-width columns come first, so that no byte is padding.
-- No CHECK and no third index: every append pays for them, and the fold has judged the row already.
CREATE TABLE annals.journal (
    log_offset      bigint   NOT NULL,
    time_ms         bigint   NOT NULL,             -- the record's timestamp, ms since 1970
    epoch           bigint   NOT NULL,
    version         bigint,                        -- of the first event; null: claim, close
    id              uuid     NOT NULL,
    shard           int      NOT NULL,
    count           int,                           -- events; null: claim, close
    kind            smallint NOT NULL,             -- 1 commit, 2 refusal, 3 claim, 4 close
    prev            bytea,                         -- chain before this record; null: claim
    stream          text COLLATE "C",              -- the record's key; null: claim, close
    idempotency_key bytea,                         -- SHA-256 of the client's; null: claim, close
    traceparent     text COLLATE "C",
    seen            text COLLATE "C",              -- `{n}:{chain in hex}`, claims only
    value           bytea    NOT NULL,             -- JSON exactly as written
    CONSTRAINT journal_pkey PRIMARY KEY (shard, log_offset)
);
CREATE INDEX journal_by_stream ON annals.journal (stream, log_offset);

-- Only inserts are ever right. A statement-level trigger costs an insert nothing.
CREATE FUNCTION annals.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on %.% refused: it is append-only', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER journal_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON annals.journal
    FOR EACH STATEMENT EXECUTE FUNCTION annals.refuse_change();
-- ALWAYS: a session that plays a replica does not get round it.
ALTER TABLE annals.journal ENABLE ALWAYS TRIGGER journal_append_only;

-- What this log is, for ever; the only row is written when the log is created.
CREATE TABLE annals.log_meta (
    app        text COLLATE "C" NOT NULL,
    shards     int  NOT NULL CHECK (shards > 0),
    generation int  NOT NULL CHECK (generation > 0),
    kind       text COLLATE "C" NOT NULL,          -- postgres, kafka
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX log_meta_one_row ON annals.log_meta ((true));

-- Postgres log: the head of each shard, moved by the statement that appends. Room in the page lets every
-- update stay in it and touch no index.
CREATE TABLE annals.log_head (
    shard       int     CONSTRAINT log_head_pkey PRIMARY KEY,
    next_offset bigint  NOT NULL,
    accepted    bigint  NOT NULL,
    epoch       bigint  NOT NULL,
    chain       bytea   NOT NULL,
    time_ms     bigint  NOT NULL,
    closed      boolean NOT NULL,
    last_hash   bytea                              -- of the record at next_offset - 1; null: none
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE TABLE annals.snapshot (
    stream      text COLLATE "C" CONSTRAINT snapshot_pkey PRIMARY KEY,
    log_offset  bigint NOT NULL,                   -- true up to here, exclusive
    version     bigint NOT NULL,
    fingerprint bytea  NOT NULL,
    state       bytea  NOT NULL,
    bytes       int    NOT NULL,
    taken_at    timestamptz NOT NULL DEFAULT now()
);

-- How far each reader has folded each shard: the head, and what it was made of.
CREATE TABLE annals.checkpoint (
    reader      text COLLATE "C" NOT NULL,         -- indexer, projection/{name}/{build}, process/{name}, publish, audit…
    shard       int     NOT NULL,
    next_offset bigint  NOT NULL,
    accepted    bigint  NOT NULL,
    epoch       bigint  NOT NULL,
    chain       bytea   NOT NULL,
    time_ms     bigint  NOT NULL,
    closed      boolean NOT NULL,
    last_hash   bytea,                             -- of the record at next_offset - 1; null: none
    last_ghost  boolean NOT NULL,                  -- whether that record was a ghost
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT checkpoint_pkey PRIMARY KEY (reader, shard)
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Large values: lz4 costs a fraction of the default's CPU. A server built without it keeps the default.
DO $$
BEGIN
    ALTER TABLE annals.journal ALTER COLUMN value SET COMPRESSION lz4;
    ALTER TABLE annals.snapshot ALTER COLUMN state SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END
$$;

-- The journal is written by the command role (Postgres log) or the indexer (Kafka).
GRANT SELECT, INSERT ON annals.journal TO annals_command, annals_indexer;
GRANT SELECT ON annals.journal TO annals_projector, annals_process, annals_query, annals_audit;
GRANT SELECT, INSERT ON annals.log_meta TO annals_command, annals_indexer;
GRANT SELECT ON annals.log_meta TO annals_projector, annals_process, annals_query, annals_audit;
GRANT SELECT, INSERT, UPDATE ON annals.log_head TO annals_command;
GRANT SELECT ON annals.log_head TO annals_indexer, annals_projector, annals_process, annals_query, annals_audit;
GRANT SELECT, INSERT, UPDATE, DELETE ON annals.snapshot TO annals_command;
GRANT SELECT, DELETE ON annals.snapshot TO annals_process; -- erasure
GRANT SELECT ON annals.checkpoint TO annals_command, annals_query;
GRANT SELECT, INSERT, UPDATE, DELETE ON annals.checkpoint
    TO annals_indexer, annals_projector, annals_process, annals_audit;

-- Each writer has rows of its own. (The owner and superusers, so `dev`, are not checked and pay nothing.)
ALTER TABLE annals.checkpoint ENABLE ROW LEVEL SECURITY;
CREATE POLICY checkpoint_read ON annals.checkpoint FOR SELECT USING (true);
CREATE POLICY checkpoint_indexer ON annals.checkpoint TO annals_indexer
    USING (reader = 'indexer' OR reader LIKE 'indexer/%');
CREATE POLICY checkpoint_projector ON annals.checkpoint TO annals_projector
    USING (reader LIKE 'projection/%');
CREATE POLICY checkpoint_process ON annals.checkpoint TO annals_process
    USING (reader LIKE 'process/%' OR reader = 'publish' OR reader LIKE 'publish/%');
CREATE POLICY checkpoint_audit ON annals.checkpoint TO annals_audit
    USING (reader = 'audit' OR reader LIKE 'audit/%' OR reader = 'sealer' OR reader LIKE 'sealer/%');
