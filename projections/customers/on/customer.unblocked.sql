UPDATE customers c
SET status = 'active'
FROM events e
WHERE c.customer_id = e.key::uuid;
