"""How fast the projector is, next to the limits of its parts and to what people do today: `make bench`."""
