"""Recognition of very many files on Ray: what is read, where the rows go, and the run."""
