"""Who is a member, who votes and who leads: draining, removal, hand-over, rotation of the cluster secret."""
