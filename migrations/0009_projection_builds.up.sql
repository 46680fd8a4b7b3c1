-- The life of a build: asked for, made, fed beside the live one, switched to, kept for a while, dropped. Whoever asks
-- writes a row here; the projectors do it. A build keeps its files, so that it is fed whatever folder a node has.
ALTER TABLE annals.projection
    ADD COLUMN files           jsonb,              -- path in the folder → text; null: made before this migration
    ADD COLUMN made_at         timestamptz,        -- when its tables were made
    ADD COLUMN fed_until       timestamptz,        -- state retired: when it is fed no longer
    ADD COLUMN error           text,               -- state failed: why its tables could not be made
    ADD COLUMN resume_asked_at timestamptz,        -- parked streams are to be replayed; null: nobody asked
    ADD COLUMN resume_stream   text COLLATE "C",   -- only this one; null: all
    ADD COLUMN views_due       boolean NOT NULL DEFAULT false;  -- the views for people show another build still
UPDATE annals.projection SET made_at = created_at;

COMMENT ON COLUMN annals.projection.state IS 'asked, building, running, retired, failed, dropping';
