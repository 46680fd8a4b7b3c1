-- A part of the lines leaves the order delivered. The latest return of a stream gives reason and time.
WITH latest AS (
    SELECT DISTINCT ON (key) key::uuid AS order_id, data->>'reason' AS reason, occurred_at, version,
           (data->>'complete')::boolean AS complete
    FROM events
    ORDER BY key, version DESC
)
UPDATE orders o
SET status = CASE WHEN l.complete THEN 'returned' ELSE o.status END,
    reason = l.reason, updated_at = l.occurred_at, _version = l.version
FROM latest l
WHERE o.order_id = l.order_id;
