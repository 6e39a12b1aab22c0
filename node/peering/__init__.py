"""How nodes reach one another: the peer table, connections by mutual TLS, the peer port, greetings."""
