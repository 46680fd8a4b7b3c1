-- No units: the order was never confirmed, and there is nothing to take back.
INSERT INTO daily_sales AS d (day, currency, orders, units, revenue)
SELECT (data->>'ordered_on')::date, data->>'currency', -count(*), -sum((data->>'units')::bigint)::bigint,
       -sum((data->>'total')::bigint)::bigint
FROM events
WHERE (data->>'units')::bigint > 0
GROUP BY 1, 2
ON CONFLICT (day, currency) DO UPDATE
SET orders = d.orders + excluded.orders, units = d.units + excluded.units, revenue = d.revenue + excluded.revenue;
