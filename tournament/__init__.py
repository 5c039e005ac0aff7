"""The tournament: folds, scores, elimination, and the verdict that tells luck from skill."""
