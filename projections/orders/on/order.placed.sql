INSERT INTO orders (order_id, customer_id, status, currency, total, line_count, units, ordered_on,
                    placed_at, updated_at, _version)
SELECT key::uuid, (data->>'customer')::uuid, 'placed', data->>'currency', (data->>'total')::bigint,
       jsonb_array_length(data->'lines'), (data->>'units')::bigint, (data->>'ordered_on')::date,
       occurred_at, occurred_at, version
FROM events;
