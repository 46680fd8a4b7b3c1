-- Streams and names of commands are not filled in again: no search has asked for them.
ALTER TABLE annals.audit_record RENAME TO audit_record_after;
ALTER INDEX annals.audit_record_pkey RENAME TO audit_record_after_pkey;
ALTER INDEX annals.audit_record_actor RENAME TO audit_record_after_actor;
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
INSERT INTO annals.audit_record (record, shard, log_offset, time, kind, category, actor, types)
SELECT r.record, r.shard, r.log_offset, r.time, s.kind, NULLIF(s.category, ''), r.actor, s.types
FROM annals.audit_record_after r JOIN annals.audit_shape s USING (shape);
DROP TABLE annals.audit_record_after;
DROP TABLE annals.audit_shape;

CREATE INDEX audit_record_time ON annals.audit_record (time, record);
CREATE INDEX audit_record_stream ON annals.audit_record (stream, log_offset);
CREATE INDEX audit_record_category ON annals.audit_record (category, time);
CREATE INDEX audit_record_actor ON annals.audit_record (actor, time);
CREATE INDEX audit_record_command ON annals.audit_record (command, time);
CREATE INDEX audit_record_types ON annals.audit_record USING gin (types);
GRANT SELECT, INSERT, DELETE ON annals.audit_record TO annals_audit;
