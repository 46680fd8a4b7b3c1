CREATE TABLE orders (
    order_id    uuid        PRIMARY KEY,
    customer_id uuid        NOT NULL,
    status      text        NOT NULL,   -- placed, confirmed, rejected, cancelled, shipped, delivered, returned
    currency    text        NOT NULL,
    total       bigint      NOT NULL,   -- minor units
    line_count  int         NOT NULL,
    units       bigint      NOT NULL,
    ordered_on  date        NOT NULL,
    placed_at   timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,   -- of the order's latest event
    reason      text                    -- of a rejection, a cancellation or the latest return
);
-- With the key behind them, so that a page begins where the one before ended.
CREATE INDEX orders_placed_at ON orders (placed_at, order_id);
CREATE INDEX orders_total ON orders (total, order_id);
CREATE INDEX orders_customer_id ON orders (customer_id, placed_at, order_id);
CREATE INDEX orders_status ON orders (status);
