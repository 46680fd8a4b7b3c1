DROP INDEX annals.process_outbox_age;
DROP INDEX annals.process_outbox_open;
CREATE INDEX process_outbox_open ON annals.process_outbox (process, due_at, instance, seq)
    WHERE state IN ('pending', 'sent');
ALTER TABLE annals.process_instance DROP COLUMN timers_set, DROP COLUMN last_seq;
