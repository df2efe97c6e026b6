"""The decisions of Sluice over models in memory of its servers, all order and every crash chosen by a seed."""
