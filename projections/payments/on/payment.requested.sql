INSERT INTO payments (order_id, customer_id, amount, currency, status, _version)
SELECT key::uuid, (data->>'customer')::uuid, (data->'amount'->>'amount')::bigint, data->'amount'->>'currency',
       'requested', version
FROM events;
