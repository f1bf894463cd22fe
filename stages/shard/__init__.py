"""Split, tars, metafiles, checksums: the release."""
