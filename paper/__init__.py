"""The paper desk: asks the ensemble each bar and trades it, under a risk engine, with a record of all it did."""
