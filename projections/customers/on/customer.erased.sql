UPDATE customers c
SET status = 'erased', name = NULL, email = NULL
FROM events e
WHERE c.customer_id = e.key::uuid;
