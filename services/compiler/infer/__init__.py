"""Models that map tensors to tensors: their functions, their export, and how near their answers are to the source's."""
