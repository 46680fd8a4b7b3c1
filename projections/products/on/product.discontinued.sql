UPDATE products p
SET status = 'discontinued', _version = e.version
FROM events e
WHERE p.sku = e.key;
