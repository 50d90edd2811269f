-- The counter behind every `revision`. One row.
CREATE TABLE revision (
    value INTEGER NOT NULL
) STRICT;
INSERT INTO revision VALUES (0);

CREATE TABLE users (
    id INTEGER PRIMARY KEY,
    username TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('cashier', 'releasing', 'manager')),
    password_hash TEXT NOT NULL
) STRICT;

-- A session is found by the digest of its cookie, so that the database opens no session to who reads it.
CREATE TABLE sessions (
    digest TEXT PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES users (id),
    expires_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE products (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    price_cents INTEGER NOT NULL CHECK (price_cents >= 0),
    stock INTEGER NOT NULL CHECK (stock >= 0)
) STRICT;

CREATE TABLE orders (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    customer TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('created', 'payment', 'paid', 'released', 'cancelled')),
    total_cents INTEGER NOT NULL,
    created_by INTEGER NOT NULL REFERENCES users (id),
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    -- When it became a sale; null before, and again when cancelled.
    paid_ms INTEGER,
    revision INTEGER NOT NULL
) STRICT;
CREATE INDEX orders_revision ON orders (revision);
CREATE INDEX orders_status ON orders (status, id);
CREATE INDEX orders_paid ON orders (paid_ms) WHERE paid_ms IS NOT NULL;

CREATE TABLE order_items (
    order_id INTEGER NOT NULL REFERENCES orders (id),
    product_id INTEGER NOT NULL REFERENCES products (id),
    -- Name and price as they were when ordered.
    name TEXT NOT NULL,
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    price_cents INTEGER NOT NULL,
    PRIMARY KEY (order_id, product_id)
) STRICT;

CREATE TABLE registrations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    email TEXT,
    status TEXT NOT NULL CHECK (status IN ('created', 'released')),
    created_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL
) STRICT;
CREATE INDEX registrations_revision ON registrations (revision);
CREATE INDEX registrations_status ON registrations (status, id);

CREATE TABLE comments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    order_id INTEGER NOT NULL REFERENCES orders (id),
    user_id INTEGER NOT NULL REFERENCES users (id),
    body TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX comments_order ON comments (order_id, id);

-- Broadcasts that were not delivered yet, in the order they have to go out. Written in the transaction of the change they tell of.
CREATE TABLE broadcasts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    channel TEXT NOT NULL,
    event TEXT NOT NULL,
    data TEXT NOT NULL,
    -- The connection that caused it and shall not hear it.
    socket_id TEXT
) STRICT;
