-- Parked instances stay stuck; what waited for them is lost with the table, so resume them first.
DROP TABLE annals.process_held;
DROP SEQUENCE annals.process_held_n;
DROP INDEX annals.process_instance_parked;
ALTER TABLE annals.process_instance DROP COLUMN parked;
