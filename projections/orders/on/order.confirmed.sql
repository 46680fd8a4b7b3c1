UPDATE orders o
SET status = 'confirmed', updated_at = e.occurred_at, _version = e.version
FROM events e
WHERE o.order_id = e.key::uuid;
