"""The evidence about a model: what it is measured on, how, against what, and the card it is in."""
