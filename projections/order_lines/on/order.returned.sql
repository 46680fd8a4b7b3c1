WITH back AS (
    SELECT e.key::uuid AS order_id, (l->>'line')::int AS line, sum((l->>'quantity')::bigint)::bigint AS quantity,
           max(e.version) AS version
    FROM events e, jsonb_array_elements(e.data->'lines') AS l
    GROUP BY 1, 2
)
UPDATE order_lines o
SET returned = o.returned + b.quantity, _version = b.version
FROM back b
WHERE o.order_id = b.order_id AND o.line = b.line;
