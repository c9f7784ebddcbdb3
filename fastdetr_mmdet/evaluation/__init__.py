"""Evaluation of a run: detections beside ground truth, COCO figures, types of errors."""
