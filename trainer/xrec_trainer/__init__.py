"""Learn a recommender from the logs of several platforms."""
