INSERT INTO order_lines (order_id, line, customer_id, sku, quantity, unit_price, amount, _version)
SELECT e.key::uuid, (l->>'line')::int, (e.data->>'customer')::uuid, l->>'sku', (l->>'quantity')::bigint,
       (l->>'unit_price')::bigint, (l->>'amount')::bigint, e.version
FROM events e, jsonb_array_elements(e.data->'lines') AS l;
