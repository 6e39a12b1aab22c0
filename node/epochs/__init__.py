"""This node's share of the training: Ray (or none) of the committed epoch, and the trainer where its head is."""
