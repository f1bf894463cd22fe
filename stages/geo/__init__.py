"""Place names, coordinates, seasons, meta captions."""
