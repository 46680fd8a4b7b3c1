DROP SCHEMA annals;

DO $$
DECLARE
    role_name text;
BEGIN
    EXECUTE format('REVOKE CREATE ON DATABASE %I FROM annals_projector, annals_audit', current_database());
    FOREACH role_name IN ARRAY ARRAY['annals_command', 'annals_indexer', 'annals_projector',
                                     'annals_process', 'annals_query', 'annals_audit'] LOOP
        BEGIN
            EXECUTE format('DROP ROLE IF EXISTS %I', role_name);
        EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege OR undefined_object
                     OR object_in_use THEN
            NULL; -- another database of this server still uses it
        END;
    END LOOP;
END
$$;
