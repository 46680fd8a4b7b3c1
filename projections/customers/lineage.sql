-- The customer's own stream, and every order of theirs that was confirmed, cancelled or came back.
SELECT DISTINCT stream
FROM events
WHERE stream = 'customer-' || $1 OR data->>'customer' = $1
