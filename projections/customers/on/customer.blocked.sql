UPDATE customers c
SET status = 'blocked'
FROM events e
WHERE c.customer_id = e.key::uuid;
