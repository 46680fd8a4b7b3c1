-- Outbox rows that are over may be deleted, and timers are when they fire: what numbers them is counted in
-- the instance, so that no number, and with it no key, is ever given twice.
ALTER TABLE annals.process_instance
    ADD COLUMN last_seq   bigint NOT NULL DEFAULT 0,   -- the highest number of its outbox rows
    ADD COLUMN timers_set bigint NOT NULL DEFAULT 0;   -- the highest number of its timers
UPDATE annals.process_instance i
SET last_seq = COALESCE((SELECT max(seq) FROM annals.process_outbox o
                         WHERE o.process = i.process AND o.instance = i.instance), 0),
    timers_set = COALESCE((SELECT max(n) FROM annals.timer t
                           WHERE t.process = i.process AND t.instance = i.instance), 0);

-- Late commands go by their deadline, effects by when they are due; each is looked for every tick.
DROP INDEX annals.process_outbox_open;
CREATE INDEX process_outbox_open ON annals.process_outbox (process, kind, state, COALESCE(deadline_at, due_at))
    WHERE state IN ('pending', 'sent');
-- Old rows stand together: a few summaries find them, and writing costs nothing.
CREATE INDEX process_outbox_age ON annals.process_outbox USING brin (created_at) WITH (pages_per_range = 32);
