"""Where the time of a run goes, region by region and operation by operation, and how much noise each leaves."""
