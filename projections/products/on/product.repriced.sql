UPDATE products p
SET price = (e.data->'price'->>'amount')::bigint, currency = e.data->'price'->>'currency', _version = e.version
FROM events e
WHERE p.sku = e.key;
