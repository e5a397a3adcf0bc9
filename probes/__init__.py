"""Look inside a question-answering encoder while it answers."""
