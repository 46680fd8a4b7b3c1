DROP TABLE annals.checkpoint;
DROP TABLE annals.snapshot;
DROP TABLE annals.log_head;
DROP TABLE annals.log_meta;
DROP TABLE annals.journal;
DROP FUNCTION annals.refuse_change();
