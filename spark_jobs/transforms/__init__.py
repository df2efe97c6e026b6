"""One module per family of datasets: pure functions `DataFrame -> DataFrame`."""
