UPDATE payments p
SET status = 'voided', _version = e.version
FROM events e
WHERE p.order_id = e.key::uuid;
