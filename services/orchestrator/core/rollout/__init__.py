"""From a blueprint to what each node is told now, make-before-break."""
