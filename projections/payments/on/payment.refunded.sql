-- Refunded is a payment of which all is; a part leaves it captured.
WITH back AS (
    SELECT key::uuid AS order_id, sum((data->'amount'->>'amount')::bigint)::bigint AS amount, max(version) AS version
    FROM events
    GROUP BY key
)
UPDATE payments p
SET refunded = p.refunded + b.amount,
    status = CASE WHEN p.refunded + b.amount >= p.captured THEN 'refunded' ELSE p.status END,
    _version = b.version
FROM back b
WHERE p.order_id = b.order_id;
