CREATE TABLE order_lines (
    order_id    uuid   NOT NULL,
    line        int    NOT NULL,               -- from 1
    customer_id uuid   NOT NULL,
    sku         text   COLLATE "C" NOT NULL,
    quantity    bigint NOT NULL,
    unit_price  bigint NOT NULL,               -- minor units of the order's currency
    amount      bigint NOT NULL,
    returned    bigint NOT NULL DEFAULT 0,     -- units that came back
    PRIMARY KEY (order_id, line)
);
CREATE INDEX order_lines_sku ON order_lines (sku, order_id, line);
CREATE INDEX order_lines_customer_id ON order_lines (customer_id, order_id, line);
