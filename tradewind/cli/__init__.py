"""The command line: everything a person does."""
