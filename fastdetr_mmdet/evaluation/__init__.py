"""Evaluate a run: detections and ground truth, COCO metrics, types of errors."""
