DROP FUNCTION annals.advance_checkpoints;
