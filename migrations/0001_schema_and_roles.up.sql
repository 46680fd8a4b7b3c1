-- The schema of the machinery, and one group role for each kind of work.
--
-- The roles cannot log in: an operator makes login roles and puts each into one of them
-- (`CREATE ROLE shop_query LOGIN PASSWORD … IN ROLE annals_query`). What each may do is granted beside
-- the tables, in the migrations after this one. The role that migrates owns the database; it is the
-- seventh, and has no group.
--
-- Roles belong to the whole server, and several databases of one server may be migrated at once: "it is
-- there already" is a usual case, and is reported in two forms.

CREATE SCHEMA annals;

DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['annals_command', 'annals_indexer', 'annals_projector',
                                     'annals_process', 'annals_query', 'annals_audit'] LOOP
        FOR attempt IN 1..100 LOOP
            BEGIN
                IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
                    EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
                END IF;
                EXECUTE format('GRANT USAGE ON SCHEMA annals TO %I', role_name);
                EXIT;
            EXCEPTION WHEN duplicate_object OR unique_violation OR undefined_object THEN
                -- Another database's migration made it, or dropped it, at this moment: look again.
                IF attempt = 100 THEN RAISE; END IF;
            END;
        END LOOP;
    END LOOP;

    -- The projector makes a schema for each build of a projection, the auditor a scratch one to
    -- compare with. `CREATE DATABASE … TEMPLATE` does not copy these two.
    EXECUTE format('GRANT CREATE ON DATABASE %I TO annals_projector, annals_audit', current_database());
END
$$;
