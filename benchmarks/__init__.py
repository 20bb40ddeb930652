"""What Comity costs, alone and beside its peers, in one run on one machine: `make bench`."""
