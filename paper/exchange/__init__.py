"""The local exchange: a server on loopback that speaks Alpaca's protocols, on a virtual clock, over any panel.

It differs from Alpaca in this: only market orders for the day; they fill together at the next open
(or close), sells first, buys scaled to the cash; costs are in the fill price, at full precision;
where the trading is long_short, fractions of shares are sold short, and one order may turn a long
position into a short one. Bid and ask are the newest price.

What asks for orders and what they need goes from `http` (routes) through `core` (rules, fills) to
`book` (the account) and `tape` (the market as far as its clock lets it be seen).
"""
