-- Process managers: their instances, what they want sent, and when they want to be woken. States and
-- payloads are JSON in UTF-8 as bytes (jsonb would refuse U+0000 and rewrite the text).
CREATE TABLE annals.process_instance (
    process    text COLLATE "C" NOT NULL,
    instance   text COLLATE "C" NOT NULL,
    state      bytea NOT NULL,
    step       text NOT NULL,
    stuck      text,                               -- why it cannot go on by itself; null: it can
    error      text,                               -- the last one
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT process_instance_pkey PRIMARY KEY (process, instance)
) WITH (fillfactor = 80);
CREATE INDEX process_instance_stuck ON annals.process_instance (process, instance) WHERE stuck IS NOT NULL;

CREATE TABLE annals.process_outbox (
    process         text COLLATE "C" NOT NULL,
    instance        text COLLATE "C" NOT NULL,
    seq             bigint NOT NULL,               -- counts within the instance
    kind            text COLLATE "C" NOT NULL CHECK (kind IN ('command', 'effect')),
    resource        text COLLATE "C",              -- command: of the path
    category        text COLLATE "C",
    stream          text COLLATE "C",
    command         text COLLATE "C",
    effect          text COLLATE "C",              -- effect: its name
    payload         bytea  NOT NULL,
    idempotency_key text COLLATE "C" NOT NULL,
    key_hash        bytea  NOT NULL,               -- its SHA-256, as records have it
    state           text COLLATE "C" NOT NULL DEFAULT 'pending'
                    CHECK (state IN ('pending', 'sent', 'done', 'parked', 'withdrawn')),
    attempts        int    NOT NULL DEFAULT 0,
    due_at          timestamptz NOT NULL DEFAULT now(), -- not sent (again) before
    deadline_at     timestamptz,                   -- of the attempt under way
    sent_until      jsonb,                         -- shard → its end as seen at the last attempt
    last_error      text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT process_outbox_pkey PRIMARY KEY (process, instance, seq)
) WITH (fillfactor = 80);
CREATE INDEX process_outbox_open ON annals.process_outbox (process, due_at, instance, seq)
    WHERE state IN ('pending', 'sent');
CREATE INDEX process_outbox_answer ON annals.process_outbox (process, stream, key_hash)
    WHERE kind = 'command';

CREATE TABLE annals.timer (
    process  text COLLATE "C" NOT NULL,
    instance text COLLATE "C" NOT NULL,
    name     text COLLATE "C" NOT NULL,
    due_at   timestamptz NOT NULL,
    n        bigint NOT NULL,                      -- how often this timer was set
    waits    jsonb,                                -- shard → its end when the timer fell due; null: not due yet
    CONSTRAINT timer_pkey PRIMARY KEY (process, instance, name)
);
CREATE INDEX timer_due ON annals.timer (due_at);

GRANT SELECT, INSERT, UPDATE, DELETE
    ON annals.process_instance, annals.process_outbox, annals.timer TO annals_process;
GRANT SELECT ON annals.process_instance, annals.process_outbox, annals.timer TO annals_query;
