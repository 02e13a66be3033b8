"""The model that is shipped: weights, exported files and their card (README.md), as package data."""
