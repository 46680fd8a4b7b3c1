INSERT INTO products (sku, name, price, currency, status, _version)
SELECT key, data->>'name', (data->'price'->>'amount')::bigint, data->'price'->>'currency', 'active', version
FROM events;
