"""Providers: their properties, the prices of their models, their keys, and a mock for laptops."""
