-- No units: the order was never confirmed, and there is nothing to take back.
INSERT INTO customers AS c (customer_id, orders, lifetime_value)
SELECT (data->>'customer')::uuid, -count(*), -sum((data->>'total')::bigint)::bigint
FROM events
WHERE (data->>'units')::bigint > 0
GROUP BY 1
ON CONFLICT (customer_id) DO UPDATE
SET orders = c.orders + excluded.orders, lifetime_value = c.lifetime_value + excluded.lifetime_value;
