DROP TABLE annals.timer;
DROP TABLE annals.process_outbox;
DROP TABLE annals.process_instance;
