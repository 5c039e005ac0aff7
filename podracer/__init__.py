"""Pods: a candidate in training, on one device (Anakin) or fed by remote actors (Sebulba)."""
