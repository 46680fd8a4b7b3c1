WITH moves AS (
    SELECT key AS sku, sum((data->>'quantity')::bigint)::bigint AS quantity, max(version) AS version
    FROM events
    GROUP BY key
)
UPDATE products p
SET on_hand = p.on_hand + m.quantity, _version = m.version
FROM moves m
WHERE p.sku = m.sku;
