-- Builds of projections, and the events that they could not apply. A build's tables lie in its own
-- schema `{name}_b{build}`, made by the projector.
CREATE TABLE annals.projection (
    name        text COLLATE "C" NOT NULL,
    build       int  NOT NULL CHECK (build > 0),
    digest      bytea NOT NULL,                    -- SHA-256 of the build's files
    state       text COLLATE "C" NOT NULL,
    live        boolean NOT NULL DEFAULT false,    -- the one that queries read
    created_at  timestamptz NOT NULL DEFAULT now(),
    switched_at timestamptz,                       -- when it last became live, or ceased to be
    CONSTRAINT projection_pkey PRIMARY KEY (name, build)
);
CREATE UNIQUE INDEX projection_one_live ON annals.projection (name) WHERE live;

CREATE TABLE annals.parked (
    projection  text COLLATE "C" NOT NULL,
    build       int    NOT NULL,
    stream      text COLLATE "C" NOT NULL,
    shard       int    NOT NULL,
    log_offset  bigint NOT NULL,
    event_index int    NOT NULL,                   -- within the record, from 0
    type        text COLLATE "C" NOT NULL,
    error       text,                              -- null: parked only because an earlier one of the stream is
    parked_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT parked_pkey PRIMARY KEY (projection, build, shard, log_offset, event_index)
);
CREATE INDEX parked_by_stream ON annals.parked (projection, build, stream);

GRANT SELECT, INSERT, UPDATE, DELETE ON annals.projection, annals.parked TO annals_projector;
GRANT SELECT ON annals.projection, annals.parked TO annals_process, annals_query, annals_audit;
GRANT DELETE ON annals.parked TO annals_process; -- erasure
