-- What the shop sells.
INSERT INTO products (name, price_cents, stock) VALUES
    ('Espresso', 250, 400),
    ('Cappuccino', 380, 400),
    ('Flat White', 420, 300),
    ('Pot of Tea', 340, 300),
    ('Lemonade', 390, 200),
    ('Croissant', 290, 120),
    ('Cinnamon Bun', 350, 90),
    ('Cheese Sandwich', 650, 60),
    ('Carrot Cake', 480, 40),
    ('Granola Bowl', 720, 30),
    ('House Blend 250 g', 1150, 25),
    ('Enamel Mug', 1600, 12);
