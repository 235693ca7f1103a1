"""Between the messages of the contract and the pure vocabulary of the core. Nothing is decided here."""
