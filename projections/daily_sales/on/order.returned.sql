INSERT INTO daily_sales AS d (day, currency, units, revenue)
SELECT (data->>'ordered_on')::date, data->>'currency', -sum((data->>'units')::bigint)::bigint,
       -sum((data->>'amount')::bigint)::bigint
FROM events
GROUP BY 1, 2
ON CONFLICT (day, currency) DO UPDATE
SET units = d.units + excluded.units, revenue = d.revenue + excluded.revenue;
