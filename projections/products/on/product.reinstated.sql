UPDATE products p
SET status = 'active', _version = e.version
FROM events e
WHERE p.sku = e.key;
