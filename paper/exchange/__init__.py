"""The local exchange: a server on loopback that speaks Alpaca's protocols, on a virtual clock, over any panel."""
