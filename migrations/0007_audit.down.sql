DROP TABLE annals.audit_record;
