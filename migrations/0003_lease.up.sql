-- Who should do what. A lease is liveness only; safety is elsewhere (the accepted claim, the
-- checkpoint's compare-and-set).
CREATE TABLE annals.lease (
    kind       text COLLATE "C" NOT NULL,          -- node, command, projection, process, sealer, publish, …
    name       text COLLATE "C" NOT NULL,          -- node: its id; projection: {name}/{build}; process: its name; else ''
    shard      int  NOT NULL,                      -- 0 where the work has no shards
    node       text COLLATE "C" NOT NULL,          -- who has it
    url        text NOT NULL,                      -- where that node listens for other nodes
    roles      text[] NOT NULL DEFAULT '{}',       -- node roles, kind node only
    epoch_hint bigint NOT NULL DEFAULT 0,          -- the epoch last claimed, for people
    expires_at timestamptz NOT NULL,               -- by this database's clock; -infinity: released
    CONSTRAINT lease_pkey PRIMARY KEY (kind, name, shard)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

GRANT SELECT ON annals.lease TO annals_query;
GRANT SELECT, INSERT, UPDATE, DELETE ON annals.lease
    TO annals_command, annals_indexer, annals_projector, annals_process, annals_audit;

ALTER TABLE annals.lease ENABLE ROW LEVEL SECURITY;
CREATE POLICY lease_read ON annals.lease FOR SELECT USING (true);
CREATE POLICY lease_command ON annals.lease TO annals_command USING (kind = 'command');
CREATE POLICY lease_indexer ON annals.lease TO annals_indexer USING (kind = 'indexer');
CREATE POLICY lease_projector ON annals.lease TO annals_projector USING (kind = 'projection');
CREATE POLICY lease_process ON annals.lease TO annals_process USING (kind IN ('process', 'publish'));
CREATE POLICY lease_audit ON annals.lease TO annals_audit USING (kind IN ('audit', 'sealer'));

-- Every node keeps a row of kind `node`, query nodes too, whose database role may write no table. So
-- this one row is kept through a function with its owner's rights.
CREATE FUNCTION annals.keep_node(node_id text, node_url text, node_roles text[], ttl interval)
RETURNS timestamptz LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM annals.lease WHERE (kind, name, shard) IN (
        SELECT kind, name, shard FROM annals.lease
        WHERE kind = 'node' AND name <> node_id AND expires_at < now() - interval '1 hour'
        FOR UPDATE SKIP LOCKED);
    INSERT INTO annals.lease (kind, name, shard, node, url, roles, expires_at)
    VALUES ('node', node_id, 0, node_id, node_url, node_roles, now() + ttl)
    ON CONFLICT (kind, name, shard) DO UPDATE
        SET url = excluded.url, roles = excluded.roles, expires_at = excluded.expires_at
    RETURNING expires_at;
$$;
CREATE FUNCTION annals.drop_node(node_id text)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM annals.lease WHERE kind = 'node' AND name = node_id;
$$;
REVOKE ALL ON FUNCTION annals.keep_node(text, text, text[], interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION annals.drop_node(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION annals.keep_node(text, text, text[], interval)
    TO annals_command, annals_indexer, annals_projector, annals_process, annals_query, annals_audit;
GRANT EXECUTE ON FUNCTION annals.drop_node(text)
    TO annals_command, annals_indexer, annals_projector, annals_process, annals_query, annals_audit;
