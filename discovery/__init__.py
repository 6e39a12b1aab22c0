"""Finding the other nodes: where to dial (static seeds, DNS names, mDNS) and whether to resume, join, wait or form."""
