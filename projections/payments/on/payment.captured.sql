UPDATE payments p
SET status = 'captured', captured = (e.data->'amount'->>'amount')::bigint, _version = e.version
FROM events e
WHERE p.order_id = e.key::uuid;
