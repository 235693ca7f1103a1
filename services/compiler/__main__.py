"""`python -m services.compiler`."""

from services.compiler.app import main

main()
