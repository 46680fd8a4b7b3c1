-- What auditors search by. Filled by a reader of its own, so that appends carry none of these indexes.
CREATE TABLE annals.audit_record (
    record     uuid CONSTRAINT audit_record_pkey PRIMARY KEY,
    shard      int    NOT NULL,
    log_offset bigint NOT NULL,
    time       timestamptz NOT NULL,
    kind       smallint NOT NULL,                  -- 1 commit, 2 refusal, 3 claim, 4 close
    category   text COLLATE "C",
    stream     text COLLATE "C",
    actor      text COLLATE "C",
    command    text COLLATE "C",
    types      text[] COLLATE "C" NOT NULL DEFAULT '{}',
    CONSTRAINT audit_record_place UNIQUE (shard, log_offset)
);
CREATE INDEX audit_record_time ON annals.audit_record (time, record);
CREATE INDEX audit_record_stream ON annals.audit_record (stream, log_offset);
CREATE INDEX audit_record_category ON annals.audit_record (category, time);
CREATE INDEX audit_record_actor ON annals.audit_record (actor, time);
CREATE INDEX audit_record_command ON annals.audit_record (command, time);
CREATE INDEX audit_record_types ON annals.audit_record USING gin (types);

GRANT SELECT, INSERT, DELETE ON annals.audit_record TO annals_audit;
