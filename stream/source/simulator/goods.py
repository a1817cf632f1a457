"""The shop's shelves: what each category sells, when customers come, how they react to prices."""

from __future__ import annotations

from dataclasses import dataclass

REGIONS = ("north", "south", "east", "west")
REGION_SHARES = (0.40, 0.28, 0.20, 0.12)


@dataclass(frozen=True, slots=True)
class Product:
    """One kind of article: its title without the variant, its price, how many are taken at once."""

    title: str
    variants: tuple[str, ...]
    price: float
    pack: int = 1


@dataclass(frozen=True, slots=True)
class Category:
    """What the articles of a category share.

    Attributes:
        attribute: What its variants are called.
        elasticity: By how many percent demand grows when the price falls by one.
        weekend: Traffic of Saturday and Sunday against that of a weekday.
        peaks: (hour of day, width in hours, weight), on top of a floor of traffic at night.
    """

    name: str
    brands: tuple[str, ...]
    attribute: str
    elasticity: float
    return_share: float
    weekend: float
    peaks: tuple[tuple[float, float, float], ...]
    products: tuple[Product, ...]


CATEGORIES = (
    Category(
        "groceries",
        ("Harvest Lane", "Millbrook", "Daily Pantry"),
        "size",
        1.6,
        0.01,
        1.25,
        ((8.0, 1.6, 0.7), (12.5, 1.5, 0.6), (18.0, 2.0, 1.3)),
        (
            Product("Sparkling Mineral Water 1 l", ("Classic", "Lemon", "Still"), 0.89, 6),
            Product("Arabica Coffee Capsules", ("Espresso", "Lungo", "Decaf"), 3.49, 4),
            Product("Rolled Oats 500 g", ("Whole Grain", "Fine", "Gluten Free"), 1.39, 2),
            Product("Dark Chocolate 70 %", ("Sea Salt", "Orange", "Plain"), 2.29, 2),
            Product("Cold Pressed Olive Oil 750 ml", ("Mild", "Fruity"), 9.90),
        ),
    ),
    Category(
        "household",
        ("BrightNest", "Fjordhem", "Cleanwell"),
        "scent",
        1.2,
        0.02,
        1.15,
        ((10.0, 2.2, 1.0), (19.0, 2.2, 1.0)),
        (
            Product("Dishwasher Tablets, Box of 40", ("Lemon", "Unscented"), 8.49),
            Product("AA Alkaline Batteries, Pack of 4", ("Standard", "Long Life"), 3.99, 3),
            Product("Kitchen Roll, 3-ply", ("White", "Recycled"), 1.99, 4),
            Product("Cast Iron Skillet 26 cm", ("Natural", "Enamelled Red"), 44.90),
            Product("Storage Box with Lid 20 l", ("Clear", "Grey"), 11.90, 2),
        ),
    ),
    Category(
        "electronics",
        ("Voltara", "Nimbus", "Kiteline"),
        "colour",
        2.4,
        0.06,
        1.1,
        ((13.0, 2.0, 0.5), (20.5, 2.2, 1.6)),
        (
            Product("Wireless Earbuds", ("Black", "White", "Sand"), 59.90),
            Product("USB-C Fast Charger 65 W", ("White", "Black"), 24.90),
            Product("Smart LED Bulb E27", ("Warm White", "Colour"), 12.90, 2),
            Product("Mechanical Keyboard", ("Linear", "Tactile"), 89.00),
            Product("Action Camera 4K", ("Standard", "Dive Kit"), 179.00),
        ),
    ),
    Category(
        "fashion",
        ("Aldervale", "Northweave", "Mariel"),
        "size",
        2.0,
        0.14,
        1.3,
        ((12.0, 1.6, 0.5), (21.0, 2.4, 1.5)),
        (
            Product("Merino Crew Neck Sweater", ("S", "M", "L", "XL"), 69.00),
            Product("Organic Cotton T-Shirt", ("S", "M", "L", "XL"), 17.90),
            Product("Slim Fit Jeans", ("W30", "W32", "W34"), 59.00),
            Product("Running Socks, 3 Pairs", ("36-39", "40-43", "44-47"), 12.50),
        ),
    ),
    Category(
        "beauty",
        ("Lumea", "Petal & Pine", "Dermavie"),
        "size",
        1.8,
        0.03,
        1.05,
        ((9.0, 1.5, 0.6), (13.0, 1.5, 0.4), (21.5, 1.8, 1.3)),
        (
            Product("Hydrating Day Cream SPF 30", ("50 ml", "75 ml"), 18.90),
            Product("Solid Shampoo Bar", ("Normal Hair", "Dry Hair"), 7.90),
            Product("Vitamin C Serum", ("15 ml", "30 ml"), 24.50),
            Product("Bamboo Cotton Buds, Box of 200", ("Plain", "Charcoal"), 2.49, 2),
        ),
    ),
    Category(
        "toys",
        ("Puddlejump", "Brickworth", "Oakling"),
        "age",
        2.2,
        0.05,
        1.6,
        ((10.5, 1.8, 0.9), (16.5, 2.0, 1.2)),
        (
            Product("Wooden Train Set, 40 Pieces", ("3+", "5+"), 39.90),
            Product("Building Bricks, 500 Pieces", ("4+", "6+"), 29.90),
            Product("Card Game for Two", ("Travel", "Classic"), 9.90),
            Product("Plush Otter", ("Small", "Large"), 16.90),
        ),
    ),
    Category(
        "garden",
        ("Greenhollow", "Terrafirm", "Rosewick"),
        "size",
        1.4,
        0.03,
        1.7,
        ((9.5, 2.0, 1.2), (17.0, 2.5, 0.8)),
        (
            Product("Peat-free Potting Soil 40 l", ("Universal", "Herb"), 9.49, 2),
            Product("Tomato Seeds", ("Cherry", "Beefsteak", "Plum"), 2.95, 2),
            Product("Secateurs, Forged Steel", ("Small", "Large"), 27.90),
            Product("Terracotta Pot", ("14 cm", "20 cm", "28 cm"), 6.90, 2),
        ),
    ),
    Category(
        "pets",
        ("Whiskerfield", "Goodboy & Co", "Pawsome"),
        "flavour",
        1.1,
        0.01,
        0.95,
        ((7.5, 1.5, 0.9), (18.5, 2.0, 1.1)),
        (
            Product("Cat Food Pouch 85 g", ("Salmon", "Chicken", "Turkey"), 0.79, 8),
            Product("Dog Treats, Dental Sticks", ("Medium", "Large"), 4.49, 2),
            Product("Clumping Cat Litter 10 l", ("Unscented", "Lavender"), 8.90),
            Product("Reflective Dog Leash", ("Red", "Blue"), 19.90),
        ),
    ),
)
