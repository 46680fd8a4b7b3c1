CREATE TABLE products (
    sku       text   COLLATE "C" PRIMARY KEY,
    name      text   NOT NULL,
    price     bigint NOT NULL,                 -- minor units
    currency  text   NOT NULL,
    on_hand   bigint NOT NULL DEFAULT 0,
    reserved  bigint NOT NULL DEFAULT 0,
    available bigint NOT NULL GENERATED ALWAYS AS (on_hand - reserved) STORED,
    status    text   NOT NULL                  -- active, discontinued
) WITH (fillfactor = 70);                      -- stock moves touch no index: room for them in the page
CREATE INDEX products_status ON products (status);
CREATE INDEX products_name ON products (name, sku);
CREATE INDEX products_price ON products (price, sku);
