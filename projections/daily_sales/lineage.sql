-- A day's row follows from every order of that day and currency.
SELECT DISTINCT stream
FROM events
WHERE data->>'ordered_on' = split_part($1, ',', 1) AND data->>'currency' = split_part($1, ',', 2)
