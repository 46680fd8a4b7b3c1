-- An instance that cannot react (its state, or a record for it, does not read) is parked: what comes for it waits here,
-- in order, until an operator resumes it. All others go on.
ALTER TABLE annals.process_instance ADD COLUMN parked boolean NOT NULL DEFAULT false;
CREATE INDEX process_instance_parked ON annals.process_instance (process, instance) WHERE parked;

CREATE SEQUENCE annals.process_held_n;
CREATE TABLE annals.process_held (
    process    text COLLATE "C" NOT NULL,
    instance   text COLLATE "C" NOT NULL,
    n          bigint NOT NULL DEFAULT nextval('annals.process_held_n'), -- the order in which they came
    shard      int     NOT NULL,                   -- the record
    log_offset bigint  NOT NULL,
    own        boolean NOT NULL,                   -- whether it answers a command of the process
    CONSTRAINT process_held_pkey PRIMARY KEY (process, instance, n)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON annals.process_held TO annals_process;
GRANT SELECT ON annals.process_held TO annals_query;
GRANT USAGE ON SEQUENCE annals.process_held_n TO annals_process;
