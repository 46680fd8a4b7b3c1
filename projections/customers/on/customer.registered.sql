INSERT INTO customers AS c (customer_id, name, email, status)
SELECT key::uuid, data->>'name', data->>'email', 'active'
FROM events
ON CONFLICT (customer_id) DO UPDATE
SET name = excluded.name, email = excluded.email, status = excluded.status;
