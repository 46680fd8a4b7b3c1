UPDATE payments p
SET status = 'declined', reason = e.data->>'reason', _version = e.version
FROM events e
WHERE p.order_id = e.key::uuid;
