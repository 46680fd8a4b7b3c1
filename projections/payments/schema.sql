CREATE TABLE payments (
    order_id    uuid   PRIMARY KEY,
    customer_id uuid   NOT NULL,
    amount      bigint NOT NULL,               -- minor units
    currency    text   NOT NULL,
    status      text   NOT NULL,               -- requested, authorized, declined, captured, voided, refunded
    captured    bigint NOT NULL DEFAULT 0,
    refunded    bigint NOT NULL DEFAULT 0,
    reason      text                           -- of a decline
);
CREATE INDEX payments_status ON payments (status);
CREATE INDEX payments_customer_id ON payments (customer_id, order_id);
CREATE INDEX payments_amount ON payments (amount, order_id);
