"""Where the compiler keeps files: blobs by digest, an index of what was made, the signing key. Local disk only."""
