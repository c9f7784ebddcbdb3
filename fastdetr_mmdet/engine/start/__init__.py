"""From a folder of images and labels to a trained detector: init, train, predict."""
