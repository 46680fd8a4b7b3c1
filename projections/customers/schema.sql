-- Filled by two categories of streams that have no common order: what the customer's own stream sets is nullable.
CREATE TABLE customers (
    customer_id    uuid   PRIMARY KEY,
    name           text,
    email          text,
    status         text,                       -- active, blocked, erased; null: not registered yet
    currency       text,                       -- fixed by the first admission
    orders         bigint NOT NULL DEFAULT 0,  -- confirmed and not cancelled
    lifetime_value bigint NOT NULL DEFAULT 0   -- minor units
);
CREATE INDEX customers_status ON customers (status);
CREATE INDEX customers_lifetime_value ON customers (lifetime_value, customer_id);
