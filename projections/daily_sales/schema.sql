CREATE TABLE daily_sales (
    day      date   NOT NULL,                  -- the orders' ordered_on
    currency text   COLLATE "C" NOT NULL,
    orders   bigint NOT NULL DEFAULT 0,
    units    bigint NOT NULL DEFAULT 0,
    revenue  bigint NOT NULL DEFAULT 0,        -- minor units
    PRIMARY KEY (day, currency)
) WITH (fillfactor = 70);
CREATE INDEX daily_sales_currency ON daily_sales (currency, day);
CREATE INDEX daily_sales_revenue ON daily_sales (revenue, day, currency);
