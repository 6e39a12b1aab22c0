"""The log as the rest of the node sees it: the thread that turns the core, proposals, delivery, the feed."""
