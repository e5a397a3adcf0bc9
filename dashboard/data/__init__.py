"""What the pages show, read or computed once and kept within bounds: one module a concern."""
