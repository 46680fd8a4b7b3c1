UPDATE customers c
SET name = e.data->>'name', email = e.data->>'email'
FROM events e
WHERE c.customer_id = e.key::uuid;
