INSERT INTO customers AS c (customer_id, lifetime_value)
SELECT (data->>'customer')::uuid, -sum((data->>'amount')::bigint)::bigint
FROM events
GROUP BY 1
ON CONFLICT (customer_id) DO UPDATE
SET lifetime_value = c.lifetime_value + excluded.lifetime_value;
