WITH moves AS (
    SELECT key AS sku, sum((data->>'quantity')::bigint)::bigint AS quantity, max(version) AS version
    FROM events
    GROUP BY key
)
UPDATE products p
SET reserved = p.reserved - m.quantity, _version = m.version
FROM moves m
WHERE p.sku = m.sku;
