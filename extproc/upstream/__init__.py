"""Providers: what each is like, its models' prices, its keys; and one for laptops."""
