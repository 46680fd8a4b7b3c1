DROP FUNCTION annals.drop_node(text);
DROP FUNCTION annals.keep_node(text, text, text[], interval);
DROP TABLE annals.lease;
