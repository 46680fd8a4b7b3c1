-- States that the release before does not know: builds that were never made go, all others it feeds from its folder.
DELETE FROM annals.projection WHERE state IN ('asked', 'failed');
UPDATE annals.projection SET state = 'building' WHERE state IN ('retired', 'dropping');
ALTER TABLE annals.projection
    DROP COLUMN files, DROP COLUMN made_at, DROP COLUMN fed_until, DROP COLUMN error,
    DROP COLUMN resume_asked_at, DROP COLUMN resume_stream, DROP COLUMN views_due;
COMMENT ON COLUMN annals.projection.state IS NULL;
