"""The miniature web that recipes ``mini`` and ``nano`` are built from: images, metadata, origin server, truth."""
