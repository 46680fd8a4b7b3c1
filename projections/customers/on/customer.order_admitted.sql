UPDATE customers c
SET currency = e.currency
FROM (SELECT key::uuid AS customer_id, min(data->>'currency') AS currency FROM events GROUP BY key) e
WHERE c.customer_id = e.customer_id AND c.currency IS NULL;
