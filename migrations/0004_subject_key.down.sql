DROP TABLE annals.subject_key;
