UPDATE payments p
SET status = 'authorized', _version = e.version
FROM events e
WHERE p.order_id = e.key::uuid;
