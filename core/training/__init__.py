"""Training: recipes, pipelines, steps, several processes, evaluation."""
