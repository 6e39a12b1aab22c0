"""Who a node is: its key, the CA that follows from the cluster secret, certificates, and the ring of secrets in use."""
